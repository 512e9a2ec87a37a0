-- ARGV: id, owner, most requests in line, most of this owner, most submits of this owner in a minute (0: any
-- number, the last two), then the record's other fields and values.
-- Returns {'queued' | 'already', requests ahead, bells missing}, or {'line_full' | 'share_full' | 'too_fast',
-- seconds until it is likely to be taken}.
local id, owner = ARGV[1], ARGV[2]
local most, most_of_owner, most_in_minute = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local at = now()

if redis.call('EXISTS', REQUEST .. id) == 1 then
    return {'already', redis.call('ZRANK', LINE, id) or 0, bells_missing('io', at)}
end

-- By the measured pace a place in the line comes free so often; an owner's own, as often as its turn comes.
local function seconds_until(places)
    local pace = tonumber(redis.call('GET', PACE) or 5000)
    return math.max(1, math.ceil(places * pace / workers('gpu', at) / 1000))
end

local function refused(why, seconds)
    count(1, 'submits', why)
    return {why, seconds}
end

-- An owner with nothing in line is let in whoever has filled it.
local queued = tonumber(redis.call('HGET', QUEUED, owner) or 0)
if queued > 0 and redis.call('ZCARD', LINE) >= most then return refused('line_full', seconds_until(1)) end
if most_of_owner > 0 and queued >= most_of_owner then
    return refused('share_full', seconds_until(redis.call('HLEN', QUEUED)))
end
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
    'sequence', sequence, 'place', place, 'attempt', 0, 'step', 0, 'created_at', at, unpack(ARGV, 6))
redis.call('ZADD', OWNER .. owner, sequence, id)
join_line(id, owner, place)
wait(id, 'prepare', place)
return {'queued', redis.call('ZRANK', LINE, id), bells_missing('io', at)}
