-- ARGV: id, '1' to cancel also what a GPU worker has begun.
-- Returns {outcome, state}, or {} when the request is unknown. A worker that holds the request is fenced
-- at once and learns it at its next beat.
local id, force = ARGV[1], ARGV[2] == '1'

local state = redis.call('HGET', REQUEST .. id, 'state')
if not state then return {} end
if state == 'in_queue' or (force and state == 'in_progress') then
    close(id, 'cancelled', now())
    state = 'cancelled'
end
return {state == 'cancelled' and 'cancelled' or 'not_cancellable', state}
