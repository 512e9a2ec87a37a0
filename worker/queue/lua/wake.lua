-- Returns 1 when this sleeping worker is to load its model, since more requests wait than those awake can take: so one
-- request wakes one of several. It is awake from then on, as `info` says. Else 0.
local at = now()

local waiting = redis.call('ZCARD', WAITING .. queue)
if waiting == 0 then return 0 end

local AWAKE = {starting = true, waking = true, ready = true, busy = true}

local busy = {}
for _, id in ipairs(redis.call('ZRANGE', LEASES, 0, -1)) do
    busy[redis.call('HGET', REQUEST .. id, 'worker') or ''] = true
end
local free = 0
for _, worker in ipairs(redis.call('ZRANGEBYSCORE', WORKERS .. queue, '(' .. at, '+inf')) do
    local entry = worker ~= worker_id and not busy[worker] and redis.call('GET', WORKER .. worker)
    if entry and AWAKE[cjson.decode(entry).state] then free = free + 1 end
end
if waiting <= free then return 0 end

redis.call('ZADD', WORKERS .. queue, at + hold_ms, worker_id)
redis.call('SET', WORKER .. worker_id, info, 'PX', hold_ms)
-- The first in line is told that the model is being loaded.
redis.call('PUBLISH', CHANGED, redis.call('ZRANGE', LINE, 0, 0)[1] or '')
return 1
