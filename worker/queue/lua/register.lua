-- ARGV: queue, worker id, what the worker says of itself (JSON), how long that holds (ms).
local queue, worker, info, hold = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local at = now()

redis.call('ZREMRANGEBYSCORE', WORKERS .. queue, '-inf', at)
redis.call('ZADD', WORKERS .. queue, at + hold, worker)
redis.call('SET', WORKER .. worker, info, 'PX', hold)
