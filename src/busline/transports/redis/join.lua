-- A worker's lease begins. ARGV: worker, lease in ms, its queues.
redis.call('ZREM', P .. 'live', '') -- changes nothing; a server that is out of memory refuses the first write that adds
redis.call('ZADD', P .. 'live', server_now() + tonumber(ARGV[2]), ARGV[1])
redis.call('SADD', P .. 'queues', unpack(ARGV, 3))
return 1
