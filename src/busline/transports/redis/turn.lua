-- One step of a worker: what it finished, then what it gets. Nothing of it is done twice: the number only grows.
-- ARGV: worker, number, now, wants, alone may be taken (1 or 0), then counted lists:
--   queues · refusals (handler, how many) · plain (handler, n, n fields) · kept (handler, n, n times field, key, until, ttl, value)
--   · rich (see `outcome`)
local W, seq, now, wants, lonely = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5] == '1'
local hand, at = P .. 'hand:' .. W, 6
local function take() local value = ARGV[at]; at = at + 1; return value end
local function count() return tonumber(take()) end

redis.call('ZREM', P .. 'live', '') -- changes nothing; a server that is out of memory refuses the first write that adds
local head = redis.call('HMGET', hand, TURN, ALONE)
if head[1] and tonumber(head[1]) >= seq then return {'stale'} end
local alive = redis.call('ZSCORE', P .. 'live', W) and true or false

local queues, touched, counts = {}, {}, {}
local refused, failed, released = {}, {}, {}
for n = 1, count() do queues[n] = take() end

local function tell(handler, what, n)
  local name = what .. ' ' .. handler
  counts[name] = (counts[name] or 0) + n
end

local function refuse(handler, field)
  refused[#refused + 1] = field
  tell(handler, 'refused', 1)
end

for _ = 1, count() do
  local handler = take()
  tell(handler, 'refused', count())
end

-- plain acknowledgements: of one that lives, everything it has in hand is its own
for _ = 1, count() do
  local handler, n = take(), count()
  local done = 0
  if alive then
    each_chunk(n, function(first, stop) done = done + redis.call('HDEL', hand, unpack(ARGV, at + first - 1, at + stop - 1)) end)
  else
    for i = at, at + n - 1 do
      if redis.call('HDEL', hand, ARGV[i]) == 1 then done = done + 1 else refuse(handler, ARGV[i]) end
    end
  end
  if done > 0 then tell(handler, 'handled', done) end
  at = at + n
end

-- those that carry one fact and nothing else
for _ = 1, count() do
  local handler, n, done = take(), count(), {}
  for _ = 1, n do
    local field, key, until_, ttl, value = take(), take(), take(), take(), take()
    if alive or redis.call('HEXISTS', hand, field) == 1 then
      keep(key, until_, ttl, value)
      done[#done + 1] = field
    else
      refuse(handler, field)
    end
  end
  each_chunk(#done, function(first, stop) redis.call('HDEL', hand, unpack(done, first, stop)) end)
  if #done > 0 then tell(handler, 'handled', #done) end
end

-- what an outcome carries: kind, then
--   final: id, unique, remember, letter or '', spare id, n, n sends (queue, id, due, unique, remember, envelope), m, m facts (key, until, ttl, value)
--   retried: due, attempts to add · released: nothing
local function outcome(kind)
  if kind == 'retried' then return {due = take(), add = count()} end
  if kind == 'released' then return {} end
  local told = {id = take(), unique = take(), remember = take(), letter = take(), spare = take(), sends = {}, facts = {}}
  for n = 1, count() do
    told.sends[n] = {take(), take(), take(), take(), take(), take()}
  end
  for n = 1, count() do
    told.facts[n] = {take(), take(), take(), take()}
  end
  return told
end

local function impossible(told)
  for _, send in ipairs(told.sends) do
    local kind = redis.call('TYPE', P .. 'queue:' .. send[1]).ok
    if kind ~= 'none' and kind ~= 'list' then return 'the key of the queue ' .. send[1] .. ' holds a ' .. kind end
  end
end

local function apply_final(field, told)
  finish(now, told.id, told.unique, told.remember)
  if told.letter ~= '' then bury(told.id, told.spare, told.letter) end
  for _, send in ipairs(told.sends) do
    add(send[1], now, send[2], send[3], send[4], send[5], send[6])
    touched[send[1]] = true
  end
  for _, fact in ipairs(told.facts) do keep(unpack(fact)) end
end

for _ = 1, count() do
  local kind, what, handler, field = take(), take(), take(), take()
  local told = outcome(kind)
  local e = redis.call('HGET', hand, field)
  local wrong = e and kind == 'final' and impossible(told)
  if not e then
    refuse(handler, field)
  elseif wrong then
    failed[#failed + 1] = field
    failed[#failed + 1] = wrong
  else
    if kind == 'final' then
      apply_final(field, told)
    elseif kind == 'retried' then
      delay('retrying', queue_of(e), told.due, with_attempts(e, u16(e, 3) + told.add))
    else
      released[#released + 1] = e
    end
    redis.call('HDEL', hand, field)
    if what ~= '' then tell(handler, what, 1) end
  end
end
for n = #released, 1, -1 do
  to_front(queue_of(released[n]), released[n])
  touched[queue_of(released[n])] = true
end
for name, n in pairs(counts) do redis.call('HINCRBY', P .. 'counts', name, n) end

-- what is due
for _, queue in ipairs(queues) do
  for _, kind in ipairs({'delayed:', 'retrying:'}) do
    local fields = redis.call('ZRANGEBYSCORE', P .. kind .. queue, '-inf', ARGV[3], 'LIMIT', 0, 256)
    if #fields > 0 then
      for _, e in ipairs(redis.call('HMGET', P .. 'later', unpack(fields))) do
        if e then to_back(queue, e) end
      end
      redis.call('ZREM', P .. kind .. queue, unpack(fields))
      redis.call('HDEL', P .. 'later', unpack(fields))
    end
  end
end

-- what it gets: what ended two workers is handed out alone
local jobs, names, seen, renamed = {}, {}, {}, {}
local alone = head[2] and redis.call('HEXISTS', hand, head[2]) == 1
local withheld = alone and 1 or 0
if head[2] and not alone then redis.call('HDEL', hand, ALONE) end

-- an envelope of another version: perhaps a newer worker reads it. A quarter of an hour, then dead; other bytes are dead at once
local function put_aside(queue, e)
  local mark, version, flags = redis.sha1hex(e), string.byte(e, 1, 2)
  local first = tonumber(redis.call('HGET', P .. 'foreign', mark) or now)
  local n = redis.call('INCR', P .. 'dead:last')
  if #e >= 20 and (version > 1 and version < 32 or version == 1 and flags >= 16) and now - first < 900 then
    local field = 'foreign ' .. n
    redis.call('HSETNX', P .. 'foreign', mark, ARGV[3])
    redis.call('HSET', P .. 'later', field, e)
    redis.call('ZADD', P .. 'retrying:' .. queue, now + math.min(math.max(now - first, 1), 60), field)
  else
    redis.call('HDEL', P .. 'foreign', mark)
    local told = {handler = '', reason = 'not an envelope that this version of busline reads', died_at = now, raw = true, queue = queue}
    bury('unreadable-' .. n, '', letter(told, e))
  end
end

local function hand_out(queue, found)
  local byte, sub, n = string.byte, string.sub, #jobs
  for _, e in ipairs(found) do
    local version, flags, _, _, _, _, id1, id2, queue1, queue2, task1, task2 = byte(e, 1, 12)
    local size = task2 and id1 * 256 + id2
    if size and version == 1 and flags < 16 and size > 0 and #e >= 20 + size + (queue1 + task1) * 256 + queue2 + task2 then
      local id = sub(e, 21, 20 + size)
      n = n + 1
      if seen[id] then id = id .. '\0' .. seq .. '.' .. n else seen[id] = n end
      jobs[n], names[n] = e, id
    else
      put_aside(queue, e)
    end
  end
end

local function suspect()
  for _, queue in ipairs(queues) do
    if redis.call('EXISTS', P .. 'suspect:' .. queue) == 1 then return queue end
  end
end

-- under its id each, or under another name if that is taken
local function into_hand(first, stop)
  local held, flat = redis.call('HMGET', hand, unpack(names, first, stop)), {}
  for n = first, stop do
    local at = n - first + 1
    if held[at] then names[n] = names[n] .. '\0' .. seq .. '.' .. n end
    if held[at] or seen[names[n]] ~= n then
      renamed[#renamed + 1] = n - 1
      renamed[#renamed + 1] = names[n]
    end
    flat[2 * at - 1], flat[2 * at] = names[n], jobs[n]
  end
  redis.call('HSET', hand, unpack(flat))
end

if alive then
  redis.call('HSET', hand, TURN, seq)
  local waiting = wants > 0 and not alone and suspect()
  if waiting then
    withheld = 1
    if lonely and redis.call('HLEN', hand) == 1 then
      hand_out(waiting, redis.call('LPOP', P .. 'suspect:' .. waiting, 1))
      each_chunk(#names, into_hand)
      if #names == 1 then redis.call('HSET', hand, ALONE, names[1]) end
    end
  elseif wants > 0 and not alone then
    for _, queue in ipairs(queues) do
      local found = #jobs < wants and redis.call('LPOP', P .. 'queue:' .. queue, wants - #jobs)
      if found then hand_out(queue, found) end
    end
    each_chunk(#names, into_hand)
  end
end

-- when something more is due: one worker keeps the time for all that wait
local next_due = ''
local function earliest(queue)
  local first
  for _, kind in ipairs({'delayed:', 'retrying:'}) do
    local score = redis.call('ZRANGE', P .. kind .. queue, 0, 0, 'WITHSCORES')[2]
    if score and (not first or tonumber(score) < tonumber(first)) then first = score end
  end
  return first
end

local function keeps_time(queue, due)
  local keeper = redis.call('HMGET', P .. 'keeper:' .. queue, 'worker', 'due')
  if keeper[1] == W then return true end
  local held = keeper[1] and redis.call('ZSCORE', P .. 'live', keeper[1])
  return not held or tonumber(keeper[2]) > tonumber(due) or tonumber(keeper[2]) <= now
end

if alive and wants > #jobs then
  for _, queue in ipairs(queues) do
    local due = earliest(queue)
    if due and keeps_time(queue, due) then
      redis.call('HSET', P .. 'keeper:' .. queue, 'worker', W, 'due', due)
      if next_due == '' or tonumber(due) < tonumber(next_due) then next_due = due end
    end
  end
  local over = redis.call('ZRANGEBYSCORE', P .. 'known', '-inf', ARGV[3], 'LIMIT', 0, 100)
  if #over > 0 then redis.call('ZREM', P .. 'known', unpack(over)) end
end

-- what is left is for another
for _, queue in ipairs(queues) do
  if redis.call('EXISTS', P .. 'queue:' .. queue, P .. 'suspect:' .. queue) > 0 then wake(queue) end
end
for queue in pairs(touched) do
  redis.call('SADD', P .. 'queues', queue)
  if redis.call('EXISTS', P .. 'queue:' .. queue, P .. 'suspect:' .. queue) > 0 then wake(queue) end
end
return {'done', alive and 1 or 0, refused, failed, jobs, renamed, next_due, withheld}
