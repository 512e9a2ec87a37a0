-- ARGV: lease (ms), most attempts, most dead workers, length of a turn (ms).
-- Returns {requests handed back, requests failed, bells missing on io, on gpu}; {} when another process has the turn.
local lease, most_attempts, most_crashes, turn = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local at = now()

if not redis.call('SET', TURN, 1, 'NX', 'PX', turn) then return {} end

-- Nobody reaped for a while: Redis was away, or every worker. Leases may have run out with nobody at fault,
-- so their holders get one lease to be heard again.
local last = tonumber(redis.call('GET', REAPED) or at)
redis.call('SET', REAPED, at)
if at - last > lease / 3 then redis.call('SET', QUIET, at + lease) end

local function failure(id, message)
    redis.call('HSET', REQUEST .. id, 'error', cjson.encode({type = 'worker_crashed', message = message}))
    close(id, 'failed', at)
end

local handed_back, failed = 0, 0
if at >= tonumber(redis.call('GET', QUIET) or 0) then
    for _, id in ipairs(redis.call('ZRANGEBYSCORE', LEASES, '-inf', at, 'LIMIT', 0, 100)) do
        local request = redis.call('HMGET', REQUEST .. id, 'stage', 'attempt', 'worker')
        local stage, attempt = request[1], tonumber(request[2])
        local crashes = 0
        local seen = redis.call('ZSCORE', WORKERS .. QUEUE[stage], request[3])
        if not seen or tonumber(seen) < at then
            crashes = redis.call('HINCRBY', REQUEST .. id, 'crashes', 1)
        end
        if crashes >= most_crashes then
            failure(id, string.format('%d workers died while they worked on this request (stage: %s); '
                .. 'it is not tried again.', crashes, stage))
            failed = failed + 1
        elseif attempt >= most_attempts then
            failure(id, string.format('This request was tried %d times and its worker fell silent each time '
                .. '(stage: %s); it is not tried again.', attempt, stage))
            failed = failed + 1
        else
            hand_back(id)
            handed_back = handed_back + 1
        end
    end
end
return {handed_back, failed, bells_missing('io', at), bells_missing('gpu', at)}
