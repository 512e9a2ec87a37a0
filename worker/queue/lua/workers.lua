-- Returns what each worker that is alive says of itself (JSON). Writes nothing: it works while Redis is full.
local at = read_clock(date())
local said = {}
for _, queue in ipairs({'io', 'gpu'}) do
    for _, worker in ipairs(redis.call('ZRANGEBYSCORE', WORKERS .. queue, '(' .. at, '+inf')) do
        local entry = redis.call('GET', WORKER .. worker)
        if entry then table.insert(said, entry) end
    end
end
return said
