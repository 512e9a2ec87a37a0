-- ARGV: queue, worker id, what the worker says of itself (JSON), how long that holds (ms).
local queue, worker, info, hold = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local at = now()

for _, silent in ipairs(redis.call('ZRANGEBYSCORE', WORKERS .. queue, '-inf', at)) do
    redis.call('ZREM', WORKERS .. queue, silent)
    redis.call('DEL', WORKER .. silent)
end
redis.call('ZADD', WORKERS .. queue, at + hold, worker)
redis.call('SET', WORKER .. worker, info, 'PX', hold)
