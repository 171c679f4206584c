-- Renews leases. One that ran out is renewed as long as nobody has begun to clear it away. ARGV: lease in ms, the connection on which it
-- is said, workers. Returns the server's time in ms, and those that are lost.
redis.call('ZREM', P .. 'live', '') -- changes nothing; a server that is out of memory refuses the first write that adds
local now = server_now()
local lost, ends = {}, now + tonumber(ARGV[1])
for n = 3, #ARGV do
  if redis.call('ZSCORE', P .. 'live', ARGV[n]) then
    redis.call('ZADD', P .. 'live', ends, ARGV[n])
    redis.call('HSET', P .. 'leases', ARGV[n], ARGV[1] .. ' ' .. ARGV[2])
  else
    lost[#lost + 1] = ARGV[n]
  end
end
return {now, lost}
