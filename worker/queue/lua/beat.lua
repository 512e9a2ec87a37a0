-- Returns the standing; the lease is extended when it is 'held'.
local answer = standing(id, token, 'beat')
if answer == 'held' then
    redis.call('ZADD', LEASES, now() + lease_ms, id)
    if preview ~= '' then redis.call('SET', PREVIEW .. id, preview, 'PX', lease_ms) end
    if step > 0 and step ~= tonumber(redis.call('HGET', REQUEST .. id, 'step')) then
        redis.call('HSET', REQUEST .. id, 'step', step, 'total_steps', total_steps)
        redis.call('PUBLISH', STEPPED, id)
    end
end
return answer
