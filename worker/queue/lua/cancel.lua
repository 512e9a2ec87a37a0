-- Returns {outcome, state}, or {} when the request is unknown.
local state = redis.call('HGET', REQUEST .. id, 'state')
if not state then return {} end
if state == 'in_queue' or (force and state == 'in_progress') then
    close(id, 'cancelled', now())
    state = 'cancelled'
end
return {state == 'cancelled' and 'cancelled' or 'not_cancellable', state}
