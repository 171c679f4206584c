-- Adds jobs, once for each (producer, sequence). ARGV: producer, sequence, the caller's time, then blocks:
-- queue, n, n envelopes, m, m times (id, due, unique, remember, envelope).
-- Returns index (from 0, among the m's of all blocks) and id of each that is there already.
local producer, seq = P .. 'producer:' .. ARGV[1], tonumber(ARGV[2])
local now, ahead = times(ARGV[3])
local last = redis.call('GET', producer)
if last then
  local told = cmsgpack.unpack(last)
  if told[1] >= seq then return told[2] end
end
local at, there, special = 4, {}, 0
while at <= #ARGV do
  local queue, n = ARGV[at], tonumber(ARGV[at + 1])
  at = at + 2
  each_chunk(n, function(first, stop) redis.call('RPUSH', P .. 'queue:' .. queue, unpack(ARGV, at + first - 1, at + stop - 1)) end)
  at = at + n
  local m = tonumber(ARGV[at])
  at = at + 1
  for _ = 1, m do
    local holder = add(queue, now, ahead, unpack(ARGV, at, at + 4))
    if holder then
      there[#there + 1] = special
      there[#there + 1] = holder
    end
    special, at = special + 1, at + 5
  end
  redis.call('SADD', P .. 'queues', queue)
  wake(queue)
end
redis.call('SET', producer, cmsgpack.pack({seq, there}), 'PX', 600000)
return there
