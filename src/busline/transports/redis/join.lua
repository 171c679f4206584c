-- A worker's lease begins. ARGV: worker, lease in ms, the connection on which it beats, how many queues, its queues, and where it does
-- not know all tasks a zero byte and those that it knows.
local W, n = ARGV[1], tonumber(ARGV[4])
redis.call('ZREM', P .. 'live', '') -- changes nothing; a server that is out of memory refuses the first write that adds
redis.call('ZADD', P .. 'live', server_now() + tonumber(ARGV[2]), W)
redis.call('HSET', P .. 'leases', W, ARGV[2] .. ' ' .. ARGV[3])
redis.call('SADD', P .. 'queues', unpack(ARGV, 5, 4 + n))
redis.call('SADD', P .. 'serves:' .. W, unpack(ARGV, 5, 4 + n))
each_chunk(#ARGV - 4 - n, function(first, stop) redis.call('SADD', P .. 'knows:' .. W, unpack(ARGV, 4 + n + first, 4 + n + stop)) end)
return 1
