-- Put in front of every script, behind the constants of worker/queue/keys.py: the clock, and the moves that several
-- scripts share. Between it and a script stand the arguments, as locals: the parameters of its function in
-- worker/queue/scripts.py. BELLS has the list that the bells of each queue hang in.

local BEHIND_FINISH = 1e12          -- more than two places in the line are ever apart

local LONGEST_GAP = 86400000        -- ms; nothing is ever due later than this, so a longer gap counts as one

-- What callers are told, and what a date decides: Unix time (ms), which an administrator or NTP may set at any moment.
local function date()
    local time = redis.call('TIME')
    return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- The time for leases, turns, rates and everything else that is due after so long (ms). It goes on as the date does,
-- but it stands still where the date is set back.
local function read_clock(today)
    local last, steady = string.match(redis.call('GET', CLOCK) or '', '^(%d+) (%d+)$')
    if not last then return today end
    return steady + math.min(math.max(today - last, 0), LONGEST_GAP)
end

local function now()
    local today = date()
    local steady = read_clock(today)
    redis.call('SET', CLOCK, today .. ' ' .. steady)
    return steady
end

-- What is to be done once in so long (ms) is done by whoever takes the turn first.
local function takes_turn(key, at, ms)
    if at < tonumber(redis.call('GET', key) or 0) then return false end
    redis.call('SET', key, at + ms, 'PX', ms)
    return true
end

-- Told by /metrics; names and labels are those of app/metrics.py.
local function count(by, ...)
    redis.call('HINCRBY', METRICS, table.concat({...}, '|'), by)
end

local function observe(ms, ...)
    local bound = '+Inf'
    for _, seconds in ipairs(BOUNDS) do
        if ms <= seconds * 1000 then
            bound = seconds
            break
        end
    end
    local labels = {...}
    table.insert(labels, bound)
    count(1, unpack(labels))
    labels[#labels] = 'sum'
    count(ms, unpack(labels))
end

-- Every owner with requests in the line has one in each round from the present one on, so an owner's many
-- requests stand behind another's first; within a round, and for each owner, the order is that of submission.
local function draw_place(owner, sequence)
    local present = tonumber(redis.call('GET', ROUND) or 0)
    local last = tonumber(redis.call('HGET', ROUNDS, owner) or -1)
    local round = math.max(present, last + 1)
    redis.call('HSET', ROUNDS, owner, round)
    return round * PLACES + sequence % PLACES
end

local function place_of(id)
    local request = redis.call('HMGET', REQUEST .. id, 'place', 'sequence')
    return tonumber(request[1] or request[2]) -- version 0 has no place
end

local function join_line(id, owner, place)
    if redis.call('ZADD', LINE, place, id) == 1 then redis.call('HINCRBY', QUEUED, owner, 1) end
end

local function leave_line(id, owner)
    -- Below 0: a request of version 0, which was not counted.
    if redis.call('ZREM', LINE, id) == 1 and redis.call('HINCRBY', QUEUED, owner, -1) <= 0 then
        redis.call('HDEL', QUEUED, owner)
        -- What was cancelled took no turn: whoever has nothing in the line any more starts from the present.
        redis.call('HSET', ROUNDS, owner, redis.call('GET', ROUND) or 0)
    end
end

-- Bytes that this owner keeps in the store: uploads, and pictures in requests that are not over.
local function bytes_kept(owner, at)
    for _, upload in ipairs(redis.call('ZRANGEBYSCORE', UPLOADS .. owner, '-inf', at, 'LIMIT', 0, 1000)) do
        redis.call('ZREM', UPLOADS .. owner, upload)
        redis.call('DECRBY', UPLOADED .. owner, string.match(upload, '^%d+'))
    end
    local bytes = tonumber(redis.call('GET', UPLOADED .. owner) or 0)
    local sent = redis.call('HGETALL', SENT .. owner)
    for place = 1, #sent, 2 do
        local state = redis.call('HGET', REQUEST .. sent[place], 'state')
        if state == 'in_queue' or state == 'in_progress' then
            bytes = bytes + sent[place + 1]
        else
            -- Closed by a worker of an older version.
            redis.call('HDEL', SENT .. owner, sent[place])
        end
    end
    return bytes
end

-- One owner may have half of what can be kept: so many bytes are left for others, however few owners there are.
-- `spare`: bytes that are left above the floor of free disk; nil for a store without an end.
local function has_room(owner, size, spare, at)
    if not spare then return true end
    local kept = bytes_kept(owner, at)
    return kept + size <= (kept + spare) / 2
end

-- Waiting requests keep their place, so one that is handed back stands at the front again.
-- Finishing comes before preparing: it frees disk and lets a caller go.
local function wait(id, stage, place)
    local score = stage == 'prepare' and BEHIND_FINISH + place or place
    redis.call('ZADD', WAITING .. QUEUE[stage], score, id)
    if QUEUE[stage] == 'gpu' then redis.call('PUBLISH', ARRIVED, id) end
end

-- Takes the request out of its worker's hands; the time that it was there is added to that of its stage.
local function drop_lease(id, at)
    if redis.call('ZREM', LEASES, id) == 0 then return end
    local request = redis.call('HMGET', REQUEST .. id, 'stage', 'taken_at')
    redis.call('HINCRBY', REQUEST .. id, 'spent:' .. request[1], at - request[2])
    count(at - request[2], 'stage_seconds', request[1])
    redis.call('HDEL', REQUEST .. id, 'token', 'worker')
end

-- The work of the present stage is to be done again by somebody.
local function hand_back(id, at)
    local request = redis.call('HMGET', REQUEST .. id, 'stage', 'owner')
    local place = place_of(id)
    drop_lease(id, at)
    if request[1] == 'generate' then
        redis.call('HSET', REQUEST .. id, 'state', 'in_queue', 'step', 0)
        redis.call('HDEL', REQUEST .. id, 'started_at', 'due_at')
        join_line(id, request[2], place)
        redis.call('DEL', PREVIEW .. id)
        redis.call('PUBLISH', CHANGED, id)
    end
    wait(id, request[1], place)
end

local function close(id, state, at)
    local request = redis.call('HMGET', REQUEST .. id, 'stage', 'owner')
    drop_lease(id, at)
    redis.call('ZREM', WAITING .. QUEUE[request[1]], id)
    leave_line(id, request[2])
    redis.call('HDEL', SENT .. request[2], id)
    local today = date()
    redis.call('HSET', REQUEST .. id, 'state', state, 'finished_at', today)
    local error = state == 'failed' and cjson.decode(redis.call('HGET', REQUEST .. id, 'error')).type or ''
    count(1, 'requests', state, error)
    redis.call('ZADD', DONE, today, id)
    redis.call('DEL', PREVIEW .. id)
    if redis.call('HEXISTS', REQUEST .. id, 'webhook') == 1 then redis.call('ZADD', WEBHOOKS, at, id) end
    redis.call('PUBLISH', CHANGED, id)
end

-- What a worker with this token may do: 'held' (it is the one), 'repeated' (this very move was made already;
-- the client sent it again because the reply was lost), else why not: 'gone' (there is no such request any more),
-- 'cancelled', or 'fenced' (another worker has it, or it is over).
local function standing(id, token, move)
    local request = redis.call('HMGET', REQUEST .. id, 'token', 'passed', 'state')
    if request[1] == token then return 'held' end
    if request[2] == token .. ':' .. move then return 'repeated' end
    if not request[3] then return 'gone' end
    if request[3] == 'cancelled' then return 'cancelled' end
    return 'fenced'
end

local function workers(queue, at)
    return math.max(1, redis.call('ZCOUNT', WORKERS .. queue, at, '+inf'))
end

-- One bell a worker is enough: whoever hears one drains the queue.
local function bells_missing(queue, at)
    local wanted = math.min(redis.call('ZCARD', WAITING .. queue), workers(queue, at))
    return math.max(0, wanted - redis.call('LLEN', BELLS[queue]))
end
