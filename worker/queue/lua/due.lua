-- ARGV: how many, lease (ms). Returns ids whose webhook is due; nobody else gets them until the lease is over.
local at = now()
local ids = redis.call('ZRANGEBYSCORE', WEBHOOKS, '-inf', at, 'LIMIT', 0, ARGV[1])
for _, id in ipairs(ids) do redis.call('ZADD', WEBHOOKS, at + tonumber(ARGV[2]), id) end
return ids
