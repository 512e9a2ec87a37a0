-- ARGV: queue, a token never used before, worker id, lease (ms), newest version of a record that the worker knows.
-- Returns the fields of the request that is now this token's, or {} when none waits.
local queue, token, worker, lease, known = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local at = now()

local id = redis.call('GET', TOKEN .. token)
if id then
    if redis.call('HGET', REQUEST .. id, 'token') ~= token then return {} end
    return redis.call('HGETALL', REQUEST .. id)
end

id = redis.call('ZRANGE', WAITING .. queue, 0, 0)[1]
if not id then return {} end
-- In the middle of an upgrade: it waits for a worker that knows how to go on with it.
if tonumber(redis.call('HGET', REQUEST .. id, 'version') or 0) > known then return {} end
redis.call('ZREM', WAITING .. queue, id)
-- Counted before the work, so that work which kills its worker is counted too.
redis.call('HINCRBY', REQUEST .. id, 'attempt', 1)
redis.call('HSET', REQUEST .. id, 'token', token, 'worker', worker, 'taken_at', at)
redis.call('SET', TOKEN .. token, id, 'PX', lease)
redis.call('ZADD', LEASES, at + lease, id)
local request = redis.call('HMGET', REQUEST .. id, 'stage', 'owner')
if request[1] == 'generate' then
    redis.call('HSET', REQUEST .. id, 'state', 'in_progress', 'started_at', at)
    local round = math.floor(place_of(id) / PLACES)
    if round > tonumber(redis.call('GET', ROUND) or 0) then redis.call('SET', ROUND, round) end
    leave_line(id, request[2])
    redis.call('PUBLISH', CHANGED, id)
end
return redis.call('HGETALL', REQUEST .. id)
