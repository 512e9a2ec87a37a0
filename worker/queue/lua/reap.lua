-- Returns {requests handed back, requests failed, bells missing on io, on gpu}; {} when another process has the turn.
local at = now()

local OUTAGE_KEPT = 86400000 -- ms

if not takes_turn(TURN, at, turn_ms) then return {} end

-- Another run of Redis than at the last turn: what it was told since then, and had not yet on disk, is lost.
local info = redis.pcall('INFO', 'server') -- some hosts do not allow it
local run = type(info) == 'string' and string.match(info, 'run_id:(%x+)')
if run then
    local today = date()
    local boot, seen = string.match(redis.call('GET', BOOT) or '', '^(%x+) (%d+)$')
    if boot and boot ~= run then
        redis.call('ZADD', OUTAGES, today, seen .. ' ' .. today)
        redis.call('ZREMRANGEBYSCORE', OUTAGES, '-inf', today - OUTAGE_KEPT)
    end
    redis.call('SET', BOOT, run .. ' ' .. today)
end

-- Nobody reaped for a while: Redis was away, or every worker, or the date was set forward. Leases may have run out with
-- nobody at fault, so their holders get one lease to be heard again, except those that are known to be dead.
local last = tonumber(redis.call('GET', REAPED) or at)
redis.call('SET', REAPED, at)
if at - last > lease_ms / 3 then redis.call('SET', QUIET, at + lease_ms) end

-- A worker that dies may have been killed from outside or by this very request; nobody can tell. So a death is
-- an attempt like any other: a request that kills its workers ends all the same.
local function give_up(id, attempts, stage)
    local message = string.format('This request was tried %d times, and each time its worker died or fell silent '
        .. '(stage: %s); it is not tried again.', attempts, stage)
    redis.call('HSET', REQUEST .. id, 'error', cjson.encode({type = 'worker_crashed', message = message}))
    close(id, 'failed', at)
end

local handed_back, failed = 0, 0
local ended = at >= tonumber(redis.call('GET', QUIET) or 0) and at or 0
local lost = redis.call('ZRANGEBYSCORE', LEASES, '-inf', ended, 'LIMIT', 0, 100, 'WITHSCORES')
for place = 1, #lost, 2 do
    local id = lost[place]
    local request = redis.call('HMGET', REQUEST .. id, 'attempt', 'stage')
    local attempts = tonumber(request[1])
    count(1, 'attempts', request[2], lost[place + 1] == '0' and 'worker_died' or 'lease_expired')
    if attempts >= max_attempts then
        give_up(id, attempts, request[2])
        failed = failed + 1
    else
        hand_back(id, at)
        handed_back = handed_back + 1
    end
end
local io, gpu = bells_missing('io', at), bells_missing('gpu', at)
if io + gpu > 0 then count(io + gpu, 'doorbells_topped_up') end
return {handed_back, failed, io, gpu}
