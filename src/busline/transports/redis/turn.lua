-- One step of a worker: settle.lua, promote.lua, hand_out.lua, keep_time.lua. Nothing of it is done twice: the number only grows.
-- ARGV: worker, number, the caller's time, wants, alone may be taken (1 or 0), bytes at most, seconds for which a job waits for one
--   who knows its task, how many queues, the queues, then what `settle` reads.
local now, ahead = times(ARGV[3])
local to = {
  worker = ARGV[1], hand = P .. 'hand:' .. ARGV[1], seq = tonumber(ARGV[2]), wants = tonumber(ARGV[4]), lonely = ARGV[5] == '1',
  room = tonumber(ARGV[6]), patience = tonumber(ARGV[7]), now = now,
}
local queues = {unpack(ARGV, 9, 8 + tonumber(ARGV[8]))}

redis.call('ZREM', P .. 'live', '') -- changes nothing; a server that is out of memory refuses the first write that adds
local head = redis.call('HMGET', to.hand, TURN, ALONE)
if head[1] and tonumber(head[1]) >= to.seq then return {'stale'} end
local alive = redis.call('ZSCORE', P .. 'live', to.worker) and true or false

local found = settle(to.hand, alive, now, ahead, 9 + #queues)
promote(queues, now)

to.alone = head[2] and redis.call('HEXISTS', to.hand, head[2]) == 1
if head[2] and not to.alone then redis.call('HDEL', to.hand, ALONE) end
if alive then redis.call('HSET', to.hand, TURN, to.seq) else to.wants = 0 end
local withheld = hand_out(to, queues)
local met_first = {}
for queue, told in pairs(to.strangers) do
  for task, n in pairs(told) do
    wake_those_who_know(queue, task)
    met_first[#met_first + 1] = task
    met_first[#met_first + 1] = n
  end
end
local due = to.wants > #to.jobs and keep_time(to.worker, queues, now, to.patience)

-- what is left is for another, and for this one in its next turn
local function is_left(queue) return redis.call('EXISTS', P .. 'queue:' .. queue, P .. 'suspect:' .. queue) > 0 end
for _, queue in ipairs(queues) do
  if is_left(queue) then
    wake(queue)
    to.more = true
  end
end
for queue in pairs(found.touched) do
  redis.call('SADD', P .. 'queues', queue)
  if is_left(queue) then wake(queue) end
end
local renamed = {}
for n in pairs(to.renamed) do
  renamed[#renamed + 1] = n - 1
  renamed[#renamed + 1] = to.names[n]
end
local wait = due and string.format('%.17g', math.max(due - now, 0)) or ''
local function flag(yes) return yes and 1 or 0 end
return {'done', flag(alive), found.refused, found.failed, to.jobs, renamed, wait, flag(withheld), flag(to.more), met_first}
