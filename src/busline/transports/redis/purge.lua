-- Forgets a dead letter. ARGV: id. Returns how many there were.
redis.call('ZREM', P .. 'dead:order', ARGV[1])
return redis.call('HDEL', P .. 'dead', ARGV[1])
