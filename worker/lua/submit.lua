-- ARGV: id, most requests in line, owner, then the record's other fields and values.
-- Returns {'queued' | 'already', requests ahead, bells missing} or {'full', seconds until a place is likely free}.
local id, cap, owner = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local at = now()

if redis.call('EXISTS', REQUEST .. id) == 1 then
    return {'already', redis.call('ZRANK', LINE, id) or 0, bells_missing('io', at)}
end
if redis.call('ZCARD', LINE) >= cap then
    local pace = tonumber(redis.call('GET', PACE) or 5000)
    return {'full', math.min(60, math.max(1, math.ceil(pace / workers('gpu', at) / 1000)))}
end

local sequence = redis.call('INCR', SEQUENCE)
local place = draw_place(owner, sequence)
redis.call('HSET', REQUEST .. id, 'id', id, 'owner', owner, 'state', 'in_queue', 'stage', 'prepare',
    'sequence', sequence, 'place', place, 'attempt', 0, 'step', 0, 'created_at', at, unpack(ARGV, 4))
redis.call('ZADD', OWNER .. owner, sequence, id)
join_line(id, owner, place)
wait(id, 'prepare', place)
return {'queued', redis.call('ZRANK', LINE, id), bells_missing('io', at)}
