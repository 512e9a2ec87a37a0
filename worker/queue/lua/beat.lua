-- Returns the standing; the lease is extended when it is 'held'.
local answer = standing(id, token, 'beat')
if answer == 'held' then
    redis.call('ZADD', LEASES, now() + lease_ms, id)
    if preview ~= '' then
        redis.call('SET', PREVIEW .. id, preview, 'PX', lease_ms)
    else
        -- The next may take minutes to come.
        redis.call('PEXPIRE', PREVIEW .. id, lease_ms)
    end
    if step > 0 and step ~= tonumber(redis.call('HGET', REQUEST .. id, 'step')) then
        redis.call('HSET', REQUEST .. id, 'step', step, 'total_steps', total_steps)
        if left_ms then redis.call('HSET', REQUEST .. id, 'due_at', date() + left_ms) end
        redis.call('PUBLISH', STEPPED, id)
    end
end
return answer
