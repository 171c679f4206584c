-- Adds jobs, once for each (producer, sequence). ARGV: producer, sequence, the caller's time, then blocks:
-- queue, n, n envelopes, m, m times (id, due, unique, remember, envelope).
-- Returns index (from 0, among the m's of all blocks) and id of each that is there already.
-- A producer's key has the number of its last call; behind a blank the answer, where that was not empty.
local producer = P .. 'producer:' .. ARGV[1]
local number, answer = string.match(redis.call('GET', producer) or '0', '^(%d+) ?(.*)$')
if tonumber(number) >= tonumber(ARGV[2]) then return answer == '' and {} or cmsgpack.unpack(answer) end

local now, ahead -- only what is more than a place in the list asks for them
local at, there, special = 4, {}, 0
while at <= #ARGV do
  local queue, n = ARGV[at], tonumber(ARGV[at + 1])
  at = at + 2
  each_chunk(n, function(first, stop) redis.call('RPUSH', P .. 'queue:' .. queue, unpack(ARGV, at + first - 1, at + stop - 1)) end)
  at = at + n
  local m = tonumber(ARGV[at])
  at = at + 1
  if m > 0 and not now then now, ahead = times(ARGV[3]) end
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
-- at the end: what fails on the way is not done, and may be asked again
local told = #there > 0 and ' ' .. cmsgpack.pack(there) or ''
redis.call('SET', producer, ARGV[2] .. told, 'PX', 600000)
return there
