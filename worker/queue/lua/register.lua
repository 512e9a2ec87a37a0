-- Returns nothing.
local at = now()

for _, silent in ipairs(redis.call('ZRANGEBYSCORE', WORKERS .. queue, '-inf', at)) do
    redis.call('ZREM', WORKERS .. queue, silent)
    redis.call('DEL', WORKER .. silent)
end
redis.call('ZADD', WORKERS .. queue, at + hold_ms, worker_id)
redis.call('SET', WORKER .. worker_id, info, 'PX', hold_ms)
