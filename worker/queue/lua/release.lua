-- ARGV: id, token. The worker gives the request back unfinished, through no fault of the request.
-- Returns the standing.
local id, token = ARGV[1], ARGV[2]

local answer = standing(id, token, 'release')
if answer == 'held' then
    redis.call('HINCRBY', REQUEST .. id, 'attempt', -1)
    redis.call('HSET', REQUEST .. id, 'passed', token .. ':release')
    count(1, 'attempts', redis.call('HGET', REQUEST .. id, 'stage'), 'released')
    hand_back(id, now())
end
return answer
