-- Keeps a fact. ARGV: key, ttl, value, the caller's time, only where none is kept (1 or 0). Returns whether it was.
local now = times(ARGV[4])
if ARGV[5] == '1' then
  local there = redis.call('GET', P .. 'fact:' .. ARGV[1])
  if there and tonumber(string.match(there, '^[^ ]+')) > now then return 0 end
end
keep(now, ARGV[1], ARGV[2], ARGV[3])
return 1
