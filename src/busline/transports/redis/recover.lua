-- After a reply that did not come: what the worker has in hand. A late copy of that turn does nothing from now on.
-- ARGV: worker, number. Returns the fields of its hand, each with the length of what is there, and whether one of them is to run alone.
local hand = P .. 'hand:' .. ARGV[1]
if not redis.call('ZSCORE', P .. 'live', ARGV[1]) then return {'lost'} end
redis.call('ZREM', P .. 'live', '') -- changes nothing; a server that is out of memory refuses the first write that adds
redis.call('HSET', hand, TURN, ARGV[2])
local found = {}
for _, field in ipairs(redis.call('HKEYS', hand)) do
  if field ~= TURN and field ~= ALONE then
    found[#found + 1] = field
    found[#found + 1] = redis.call('HSTRLEN', hand, field)
  end
end
local alone = redis.call('HGET', hand, ALONE)
return {'held', found, alone and redis.call('HEXISTS', hand, alone) or 0}
