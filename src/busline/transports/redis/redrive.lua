-- A dead letter becomes a job again. ARGV: id, queue, unique, remember, envelope.
-- Returns 1, 0 if the letter is gone, or the id of the living job that holds its unique key.
if redis.call('HEXISTS', P .. 'dead', ARGV[1]) == 0 then return 0 end
local holder = ARGV[3] ~= '' and redis.call('HGET', P .. 'locks', ARGV[3])
if holder then return holder end
redis.call('HDEL', P .. 'dead', ARGV[1])
redis.call('ZREM', P .. 'dead:order', ARGV[1])
redis.call('DEL', P .. 'fact:result/' .. ARGV[1])
redis.call('ZREM', P .. 'known', ARGV[1])
add(ARGV[2], 0, 0, ARGV[1], '', ARGV[3], ARGV[4], ARGV[5])
redis.call('SADD', P .. 'queues', ARGV[2])
wake(ARGV[2])
return 1
