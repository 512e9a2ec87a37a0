-- Returns the standing.
local answer = standing(id, token, 'close')
if answer == 'held' then
    redis.call('HSET', REQUEST .. id, 'passed', token .. ':close', unpack(fields))
    close(id, state, now())
end
return answer
