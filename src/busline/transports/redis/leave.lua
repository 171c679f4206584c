-- A worker goes: what it has in hand is given back in front, not counted. ARGV: worker, its fields in their order.
local W = ARGV[1]
local hand, order = P .. 'hand:' .. W, {}
redis.call('ZREM', P .. 'live', W)
for n = 2, #ARGV do order[#order + 1] = ARGV[n] end
local function give_back(field)
  local e = redis.call('HGET', hand, field)
  if e and field ~= TURN and field ~= ALONE then
    to_front(queue_of(e), e)
    wake(queue_of(e))
    redis.call('HDEL', hand, field)
  end
end
for n = #order, 1, -1 do give_back(order[n]) end
local rest = redis.call('HKEYS', hand)
table.sort(rest)
for n = #rest, 1, -1 do give_back(rest[n]) end
redis.call('DEL', hand)
forget(W)
return #order
