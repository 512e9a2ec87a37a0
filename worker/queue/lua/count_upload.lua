-- Returns 1, or 0 when there is no room for it.
local at = now()
local upload = size .. ' ' .. file_id
if not redis.call('ZSCORE', UPLOADS .. owner, upload) then
    if not has_room(owner, size, spare, at) then return 0 end
    redis.call('INCRBY', UPLOADED .. owner, size)
end
redis.call('ZADD', UPLOADS .. owner, at + keep_ms, upload)
redis.call('PEXPIRE', UPLOADS .. owner, keep_ms)
redis.call('PEXPIRE', UPLOADED .. owner, keep_ms)
return 1
