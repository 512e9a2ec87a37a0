-- Returns the fields of the request that is now this token's, or {} when none waits.
local at = now()

local id = redis.call('GET', TOKEN .. token)
if id then
    if redis.call('HGET', REQUEST .. id, 'token') ~= token then return {} end
    return redis.call('HGETALL', REQUEST .. id)
end

-- What a worker must load for a request, 0 to 3: a ControlNet is a larger load than LoRAs.
local function loads(needs)
    local controlnet, loras = string.match(needs, '^(.*)/(.*)$')
    return (controlnet ~= '' and controlnet ~= held_controlnet and 2 or 0) + (loras ~= held_loras and 1 or 0)
end

-- Whoever prepares may wait an hour for a caller's slow host. So while there are several io workers, one always
-- takes no request but to finish it, and no owner has all the others.
local function choose_for_io()
    local io = workers('io', at)
    local preparing, of_owner = 0, {}
    for _, id in ipairs(io > 1 and redis.call('ZRANGE', LEASES, 0, -1) or {}) do
        local stage, owner = unpack(redis.call('HMGET', REQUEST .. id, 'stage', 'owner'))
        if stage == 'prepare' then
            preparing = preparing + 1
            of_owner[owner] = (of_owner[owner] or 0) + 1
        end
    end
    for _, id in ipairs(redis.call('ZRANGE', WAITING .. 'io', 0, LOOKED_AT - 1)) do
        local stage, owner = unpack(redis.call('HMGET', REQUEST .. id, 'stage', 'owner'))
        local room = preparing < io - 1 and (of_owner[owner] or 0) < math.max(1, io - 2)
        if stage == 'finish' or io == 1 or room then return id end
    end
end

-- Of those that are about due the one with the least to load. A request is passed over for one at most that came
-- no later than PASSED_OVER after it. benchmarks/simulation/affinity.py tells what this is worth.
local function choose_for_gpu()
    local first, place = unpack(redis.call('ZRANGE', WAITING .. queue, 0, 0, 'WITHSCORES'))
    if not first then return nil end
    local chosen, least, oldest = first, 4, math.huge
    local due = redis.call('ZRANGEBYSCORE', WAITING .. queue, place, place + AHEAD, 'LIMIT', 0, LOOKED_AT)
    for _, id in ipairs(due) do
        local request = redis.call('HMGET', REQUEST .. id, 'weights', 'created_at')
        local created, load = tonumber(request[2]), loads(request[1] or '/')
        if load < least and created - oldest <= PASSED_OVER then
            chosen, least = id, load
        end
        oldest = math.min(oldest, created)
    end
    return chosen
end

if queue == 'io' then id = choose_for_io() else id = choose_for_gpu() end
if not id then return {} end
-- In the middle of an upgrade: it waits for a worker that knows how to go on with it.
if tonumber(redis.call('HGET', REQUEST .. id, 'version') or 0) > known_version then return {} end
redis.call('ZREM', WAITING .. queue, id)
-- Counted before the work, so that work which kills its worker is counted too.
local attempt = redis.call('HINCRBY', REQUEST .. id, 'attempt', 1)
redis.call('HSET', REQUEST .. id, 'token', token, 'worker', worker_id, 'taken_at', at)
redis.call('SET', TOKEN .. token, id, 'PX', lease_ms)
redis.call('ZADD', LEASES, at + lease_ms, id)
local request = redis.call('HMGET', REQUEST .. id, 'stage', 'owner', 'created_at')
if request[1] == 'generate' then
    local today = date()
    if attempt == 1 then observe(math.max(0, today - request[3]), 'queue_seconds') end
    redis.call('HSET', REQUEST .. id, 'state', 'in_progress', 'started_at', today)
    local round = math.floor(place_of(id) / PLACES)
    if round > tonumber(redis.call('GET', ROUND) or 0) then redis.call('SET', ROUND, round) end
    leave_line(id, request[2])
    redis.call('PUBLISH', CHANGED, id)
end
return redis.call('HGETALL', REQUEST .. id)
