-- ARGV: id, token, lease (ms), step, total steps (0: no step is done yet).
-- Returns the standing; the lease is extended when it is 'held'.
local id, token, lease, step, total = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]

local answer = standing(id, token, 'beat')
if answer == 'held' then
    redis.call('ZADD', LEASES, now() + lease, id)
    if step > 0 then redis.call('HSET', REQUEST .. id, 'step', step, 'total_steps', total) end
end
return answer
