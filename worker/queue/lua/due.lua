-- Returns ids whose webhook is due; nobody else gets them until the lease is over.
local at = now()
local ids = redis.call('ZRANGEBYSCORE', WEBHOOKS, '-inf', at, 'LIMIT', 0, limit)
for _, id in ipairs(ids) do redis.call('ZADD', WEBHOOKS, at + lease_ms, id) end
return ids
