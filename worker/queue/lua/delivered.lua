-- Returns nothing.
if redis.call('EXISTS', REQUEST .. id) == 1 and redis.call('HSET', REQUEST .. id, 'delivery:' .. number, attempt) == 1 then
    local status = cjson.decode(attempt).status
    count(1, 'webhooks', status and math.floor(status / 100) .. 'xx' or 'no_answer')
end
if pause_ms then
    redis.call('ZADD', WEBHOOKS, 'XX', now() + pause_ms, id)
else
    redis.call('ZREM', WEBHOOKS, id)
end
