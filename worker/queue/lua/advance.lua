-- Returns {standing, bells missing on the next stage's queue}.
local at = now()

local answer = standing(id, token, 'advance')
if answer == 'held' then
    local request = redis.call('HMGET', REQUEST .. id, 'taken_at', 'model_id', 'total_steps')
    drop_lease(id, at)
    redis.call('HSET', REQUEST .. id, 'stage', stage, 'passed', token .. ':advance', 'attempt', 0,
        unpack(fields))
    wait(id, stage, place_of(id))
    if stage == 'finish' then
        -- All steps are done, whether or not the beat of the last one was still sent.
        if request[3] then redis.call('HSET', REQUEST .. id, 'step', request[3]) end
        local took = at - request[1]
        observe(took, 'generate_seconds', request[2], request[3] or 0)
        local pace = tonumber(redis.call('GET', PACE) or took)
        redis.call('SET', PACE, math.floor(0.8 * pace + 0.2 * took))
    end
end
return {answer, bells_missing(QUEUE[stage], at)}
