-- The dead worker's entry goes at once, and what it held is reaped at the next turn instead of at the end of the
-- lease. Returns how many requests that were.
-- What follows is that worker's own part, without a dash: `io-box-7-` may also begin the ids of a host `box-7`.
local function is_dead(worker)
    return worker and string.sub(worker, 1, #id_prefix) == id_prefix
        and not string.find(worker, '-', #id_prefix + 1, true)
end

for _, worker in ipairs(redis.call('ZRANGE', WORKERS .. queue, 0, -1)) do
    if is_dead(worker) then
        redis.call('ZREM', WORKERS .. queue, worker)
        redis.call('DEL', WORKER .. worker)
    end
end
local held = 0
for _, id in ipairs(redis.call('ZRANGE', LEASES, 0, -1)) do
    if is_dead(redis.call('HGET', REQUEST .. id, 'worker')) then
        redis.call('ZADD', LEASES, 0, id)
        held = held + 1
    end
end
return held
