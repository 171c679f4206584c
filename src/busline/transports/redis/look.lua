-- Where a job stands: by where it is not waiting, and exactly while few wait. ARGV: id, now, how many may be looked through.
local id = ARGV[1]
for _, set in ipairs({redis.call('ZRANGE', P .. 'live', 0, -1), redis.call('SMEMBERS', P .. 'dying')}) do
  for _, W in ipairs(set) do
    local e = redis.call('HGET', P .. 'hand:' .. W, id)
    if e then return {'running', u16(e, 3) + 1} end
  end
end
local later = redis.call('HGET', P .. 'later', id)
if later then return {'delayed', u16(later, 3)} end
local letter_ = redis.call('HGET', P .. 'dead', id)
if letter_ then return {'failed', 0, letter_} end
local kept = redis.call('GET', P .. 'fact:result/' .. id)
if kept and tonumber(string.match(kept, '^[^ ]+')) > tonumber(ARGV[2]) then return {'succeeded', 0} end
local lines, waiting = {}, 0
for _, queue in ipairs(redis.call('SMEMBERS', P .. 'queues')) do
  for _, kind in ipairs({'queue:', 'suspect:'}) do
    waiting = waiting + redis.call('LLEN', P .. kind .. queue)
    lines[#lines + 1] = P .. kind .. queue
  end
end
if waiting > tonumber(ARGV[3]) then
  return {tonumber(redis.call('ZSCORE', P .. 'known', id) or '0') == tonumber(LIVING) and 'waiting' or 'unseen', 0}
end
for _, line in ipairs(lines) do
  for _, e in ipairs(redis.call('LRANGE', line, 0, -1)) do
    if readable(e) and id_of(e) == id then return {'waiting', u16(e, 3)} end
  end
end
return {'unknown', 0}
