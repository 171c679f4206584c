-- Puts another letter in the place of one that is still as it was read. ARGV: id, the letter, the one that was read.
-- Returns 1; 0 where it is gone, or another by now.
if redis.call('HGET', P .. 'dead', ARGV[1]) ~= ARGV[3] then return 0 end
redis.call('HSET', P .. 'dead', ARGV[1], ARGV[2])
return 1
