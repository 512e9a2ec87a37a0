-- Returns the standing.
local answer = standing(id, token, 'release')
if answer == 'held' then
    redis.call('HINCRBY', REQUEST .. id, 'attempt', -1)
    redis.call('HSET', REQUEST .. id, 'passed', token .. ':release')
    count(1, 'attempts', redis.call('HGET', REQUEST .. id, 'stage'), 'released')
    hand_back(id, now())
end
return answer
