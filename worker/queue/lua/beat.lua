-- ARGV: id, token, lease (ms), step, total steps (0: no step is done yet), preview of that step ('': none).
-- Returns the standing; the lease is extended when it is 'held'.
local id, token, lease, step, total = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
local preview = ARGV[6]

local answer = standing(id, token, 'beat')
if answer == 'held' then
    redis.call('ZADD', LEASES, now() + lease, id)
    if preview ~= '' then redis.call('SET', PREVIEW .. id, preview, 'PX', lease) end
    if step > 0 and step ~= tonumber(redis.call('HGET', REQUEST .. id, 'step')) then
        redis.call('HSET', REQUEST .. id, 'step', step, 'total_steps', total)
        redis.call('PUBLISH', STEPPED, id)
    end
end
return answer
