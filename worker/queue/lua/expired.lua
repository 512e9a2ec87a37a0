-- Returns ids whose final state is older than `retention_ms`, oldest first.
return redis.call('ZRANGEBYSCORE', DONE, '-inf', date() - retention_ms, 'LIMIT', 0, limit)
