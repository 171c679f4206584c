-- Gives back what one dead worker had in hand, some at a time, oldest in front. ARGV: now, spare id.
-- Returns the worker, how many were given back, how many are dead, and whether there may be more.
local W = redis.call('SRANDMEMBER', P .. 'dying')
if not W then
  W = redis.call('ZRANGEBYSCORE', P .. 'live', '-inf', server_now(), 'LIMIT', 0, 1)[1]
  if not W then return {'', 0, 0, 0} end
  redis.call('ZREM', P .. 'live', W)
  redis.call('SADD', P .. 'dying', W)
end
local hand, now, back, dead = P .. 'hand:' .. W, tonumber(ARGV[1]), 0, 0
redis.call('HDEL', hand, TURN, ALONE)
local fields = redis.call('HKEYS', hand)
table.sort(fields)
for n = #fields, math.max(#fields - 255, 1), -1 do
  local e = redis.call('HGET', hand, fields[n])
  local queue = queue_of(e)
  if deaths_of(e) >= 2 then
    finish(now, id_of(e), extra(e, 'u') or '', extra(e, 'r') or '')
    bury(id_of(e), ARGV[2] .. '-' .. n, letter({handler = task_of(e), reason = 'its worker died 3 times', died_at = now}, with_attempts(e, u16(e, 3) + 1)))
    redis.call('HINCRBY', P .. 'counts', 'dead ' .. task_of(e) .. '\n' .. queue, 1)
    dead = dead + 1
  else
    to_front(queue, with_deaths(e, deaths_of(e) + 1))
    wake(queue)
    back = back + 1
  end
  redis.call('HDEL', hand, fields[n])
end
local more = #fields > 256
if not more then
  redis.call('DEL', hand)
  redis.call('SREM', P .. 'dying', W)
end
return {W, back, dead, more and 1 or 0}
