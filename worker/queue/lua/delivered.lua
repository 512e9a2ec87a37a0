-- ARGV: id, number of the attempt (from 1), what came of it (JSON), ms until the next ('': there is none).
local id, number, attempt, pause = unpack(ARGV)
if redis.call('EXISTS', REQUEST .. id) == 1 and redis.call('HSET', REQUEST .. id, 'delivery:' .. number, attempt) == 1 then
    local status = cjson.decode(attempt).status
    count(1, 'webhooks', status and math.floor(status / 100) .. 'xx' or 'no_answer')
end
if pause == '' then
    redis.call('ZREM', WEBHOOKS, id)
else
    redis.call('ZADD', WEBHOOKS, 'XX', now() + tonumber(pause), id)
end
