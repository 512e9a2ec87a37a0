-- ARGV: id, token, the final state, the field that says more (output or error), its JSON.
-- Returns the standing.
local id, token, state, field, value = unpack(ARGV)

local answer = standing(id, token, 'close')
if answer == 'held' then
    redis.call('HSET', REQUEST .. id, field, value, 'passed', token .. ':close')
    close(id, state, now())
end
return answer
