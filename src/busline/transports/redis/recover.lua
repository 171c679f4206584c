-- After a reply that did not come: what the worker has in hand. A late copy of that turn does nothing from now on.
-- ARGV: worker, number.
local hand = P .. 'hand:' .. ARGV[1]
if not redis.call('ZSCORE', P .. 'live', ARGV[1]) then return {'lost'} end
redis.call('ZREM', P .. 'live', '') -- changes nothing; a server that is out of memory refuses the first write that adds
redis.call('HSET', hand, TURN, ARGV[2])
return {'held', redis.call('HGETALL', hand)}
