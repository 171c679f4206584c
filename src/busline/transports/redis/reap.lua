-- Gives back what one worker whose lease is over had in hand, some at a time, oldest in front.
-- ARGV: worker, whether it died (1; 0: it stands still), the caller's time, spare id. Returns how many were given back, and how many are dead.
local W, died, now = ARGV[1], tonumber(ARGV[2]), times(ARGV[3])
local ends = redis.call('ZSCORE', P .. 'live', W)
if ends and tonumber(ends) > server_now() then return {0, 0} end
if ends then
  redis.call('ZREM', P .. 'live', W)
  redis.call('SADD', P .. 'dying', W)
elseif redis.call('SISMEMBER', P .. 'dying', W) == 0 then
  return {0, 0}
end
local hand, back, dead, bytes = P .. 'hand:' .. W, 0, 0, 0
redis.call('HDEL', hand, TURN, ALONE)
local fields = redis.call('HKEYS', hand)
table.sort(fields)
local n = #fields
while n > 0 and back + dead < 256 and bytes < BYTES do
  local e = redis.call('HGET', hand, fields[n])
  local queue, deaths = queue_of(e), deaths_of(e) + died
  if deaths > 2 then
    finish(now, id_of(e), extra(e, 'u') or '', extra(e, 'r') or '')
    bury(id_of(e), ARGV[4] .. '-' .. n, letter({handler = task_of(e), reason = 'its worker died 3 times', died_at = now}, with_attempts(e, u16(e, 3) + 1)))
    redis.call('HINCRBY', P .. 'counts', 'dead ' .. task_of(e) .. '\n' .. queue, 1)
    dead = dead + 1
  else
    to_front(queue, with_deaths(e, deaths))
    wake(queue)
    back = back + 1
  end
  redis.call('HDEL', hand, fields[n])
  n, bytes = n - 1, bytes + #e
end
if n == 0 then
  redis.call('DEL', hand)
  redis.call('SREM', P .. 'dying', W)
  forget(W)
end
return {back, dead}
