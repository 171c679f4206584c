-- A worker whose lease is over, or whose hand is being given back, and the connection on which it beat last. ARGV: lease in ms.
-- A lease that ends later than any can was given before the server's clock was set back: it begins now.
local now = server_now()
for _, W in ipairs(redis.call('ZRANGEBYSCORE', P .. 'live', now + tonumber(ARGV[1]) + 1000, '+inf')) do
  local ms = lease_of(W) or tonumber(ARGV[1])
  if tonumber(redis.call('ZSCORE', P .. 'live', W)) > now + ms + 1000 then redis.call('ZADD', P .. 'live', now + ms, W) end
end
local W = redis.call('SRANDMEMBER', P .. 'dying') or redis.call('ZRANGEBYSCORE', P .. 'live', '-inf', now, 'LIMIT', 0, 1)[1]
if not W then return {'', ''} end
local _, connection = lease_of(W)
return {W, connection}
