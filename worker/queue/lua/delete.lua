-- Returns 'deleted', 'active' (it is still waiting or running) or 'unknown'.
local request = redis.call('HMGET', REQUEST .. id, 'state', 'owner')
if not request[1] then return 'unknown' end
if request[1] == 'in_queue' or request[1] == 'in_progress' then return 'active' end
redis.call('DEL', REQUEST .. id)
redis.call('ZREM', OWNER .. request[2], id)
redis.call('ZREM', DONE, id)
redis.call('ZREM', WEBHOOKS, id)
return 'deleted'
