-- Keeps a fact. ARGV: key, until, ttl in ms, value, now, only where none is kept (1 or 0). Returns whether it was.
if ARGV[6] == '1' then
  local there = redis.call('GET', P .. 'fact:' .. ARGV[1])
  if there and tonumber(string.match(there, '^[^ ]+')) > tonumber(ARGV[5]) then return 0 end
end
keep(ARGV[1], ARGV[2], ARGV[3], ARGV[4])
return 1
