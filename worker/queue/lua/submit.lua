-- Returns `queued` or `already`, id, requests ahead, bells missing; or `line_full`, `share_full` or `too_fast` and
-- the seconds until it is likely to be taken; or `no_room` or `key_reused`. One text, as redis-py takes a
-- twentieth of a submit to read a list.
local at = now()

local kept = key ~= '' and redis.call('GET', IDEMPOTENCY .. key)
if kept then
    local kept_id, kept_digest = string.match(kept, '^(%S+) (%S+)$')
    -- The key of a request that was deleted is free.
    if redis.call('EXISTS', REQUEST .. kept_id) == 1 then
        if kept_digest ~= digest then return 'key_reused' end
        id = kept_id
    end
end

local function told(outcome)
    return table.concat({outcome, id, redis.call('ZRANK', LINE, id) or 0, bells_missing('io', at)}, ' ')
end

if redis.call('EXISTS', REQUEST .. id) == 1 then
    return told('already')
end

-- By the measured pace a place in the line comes free so often; an owner's own, as often as its turn comes.
local function seconds_until(places)
    local pace = tonumber(redis.call('GET', PACE) or 5000)
    return math.max(1, math.ceil(places * pace / workers('gpu', at) / 1000))
end

local function refused(why, seconds)
    count(1, 'submits', why)
    return seconds and why .. ' ' .. seconds or why
end

-- An owner with nothing in line is let in whoever has filled it.
local queued = tonumber(redis.call('HGET', QUEUED, owner) or 0)
if queued > 0 and redis.call('ZCARD', LINE) >= most then return refused('line_full', seconds_until(1)) end
if most_of_owner > 0 and queued >= most_of_owner then
    return refused('share_full', seconds_until(redis.call('HLEN', QUEUED)))
end
if size > 0 and not has_room(owner, size, spare, at) then return refused('no_room') end
if most_in_minute > 0 then
    -- The generic cell rate algorithm: the time until which what was submitted lasts at the permitted pace.
    local spent = math.max(at, tonumber(redis.call('GET', SPENT .. owner) or 0)) + 60000 / most_in_minute
    if spent > at + 60000 then return refused('too_fast', math.ceil((spent - at - 60000) / 1000)) end
    redis.call('SET', SPENT .. owner, spent, 'PX', math.ceil(spent - at))
end

count(1, 'submits', 'queued')
local sequence = redis.call('INCR', SEQUENCE)
local place = draw_place(owner, sequence)
redis.call('HSET', REQUEST .. id, 'id', id, 'owner', owner, 'state', 'in_queue', 'stage', 'prepare',
    'sequence', sequence, 'place', place, 'attempt', 0, 'step', 0, 'created_at', date(), unpack(fields))
if key ~= '' then redis.call('SET', IDEMPOTENCY .. key, id .. ' ' .. digest, 'EX', key_seconds) end
redis.call('ZADD', OWNER .. owner, sequence, id)
if size > 0 then redis.call('HSET', SENT .. owner, id, size) end
join_line(id, owner, place)
wait(id, 'prepare', place)
return told('queued')
