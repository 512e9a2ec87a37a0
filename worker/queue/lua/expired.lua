-- ARGV: retention (ms), how many. Returns ids whose final state is older than that, oldest first.
return redis.call('ZRANGEBYSCORE', DONE, '-inf', date() - tonumber(ARGV[1]), 'LIMIT', 0, ARGV[2])
