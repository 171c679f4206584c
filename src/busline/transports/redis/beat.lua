-- Renews leases. One that ran out is renewed as long as nobody has begun to clear it away. ARGV: lease in ms, workers.
-- Returns those that are lost.
redis.call('ZREM', P .. 'live', '') -- changes nothing; a server that is out of memory refuses the first write that adds
local lost, ends = {}, server_now() + tonumber(ARGV[1])
for n = 2, #ARGV do
  if redis.call('ZSCORE', P .. 'live', ARGV[n]) then
    redis.call('ZADD', P .. 'live', ends, ARGV[n])
  else
    lost[#lost + 1] = ARGV[n]
  end
end
return lost
