-- One step of a worker: what it finished, then what it gets. Nothing of it is done twice: the number only grows.
-- ARGV: worker, number, the caller's time, wants, alone may be taken (1 or 0), bytes at most, seconds for which a job waits for one
--   who knows its task, then counted lists:
--   queues · refusals (handler, how many) · plain (handler, n, n fields) · kept (handler, n, n times field, key, ttl, value)
--   · rich (see `outcome`)
local W, seq, wants, lonely = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[4]), ARGV[5] == '1'
local room, patience = tonumber(ARGV[6]), tonumber(ARGV[7])
local now, ahead = times(ARGV[3])
local hand, at = P .. 'hand:' .. W, 8
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
    local field, key, ttl, value = take(), take(), take(), take()
    if alive or redis.call('HEXISTS', hand, field) == 1 then
      keep(now, key, ttl, value)
      done[#done + 1] = field
    else
      refuse(handler, field)
    end
  end
  each_chunk(#done, function(first, stop) redis.call('HDEL', hand, unpack(done, first, stop)) end)
  if #done > 0 then tell(handler, 'handled', #done) end
end

-- what an outcome carries: kind, then
--   final: id, unique, remember, letter or '', spare id, n, n sends (queue, id, due, unique, remember, envelope), m, m facts (key, ttl, value)
--   retried: seconds to wait, attempts to add · released: nothing
local function outcome(kind)
  if kind == 'retried' then return {after = count(), add = count()} end
  if kind == 'released' then return {} end
  local told = {id = take(), unique = take(), remember = take(), letter = take(), spare = take(), sends = {}, facts = {}}
  for n = 1, count() do
    told.sends[n] = {take(), take(), take(), take(), take(), take()}
  end
  for n = 1, count() do
    told.facts[n] = {take(), take(), take()}
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
    add(send[1], now, ahead, send[2], send[3], send[4], send[5], send[6])
    touched[send[1]] = true
  end
  for _, fact in ipairs(told.facts) do keep(now, unpack(fact)) end
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
      delay('retrying', queue_of(e), now + told.after, with_attempts(e, u16(e, 3) + told.add))
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

-- what is due, a few bytes at a time
for _, queue in ipairs(queues) do
  for _, kind in ipairs({'delayed:', 'retrying:'}) do
    local fields = redis.call('ZRANGEBYSCORE', P .. kind .. queue, '-inf', now, 'LIMIT', 0, 256)
    local moved, bytes = 0, 0
    while moved < #fields and bytes < BYTES do
      moved = moved + 1
      local e = redis.call('HGET', P .. 'later', fields[moved])
      if e then
        to_back(queue, e)
        bytes = bytes + #e
      end
    end
    if moved > 0 then
      redis.call('ZREM', P .. kind .. queue, unpack(fields, 1, moved))
      redis.call('HDEL', P .. 'later', unpack(fields, 1, moved))
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
    redis.call('HSETNX', P .. 'foreign', mark, now)
    redis.call('HSET', P .. 'later', field, e)
    redis.call('ZADD', P .. 'retrying:' .. queue, now + math.min(math.max(now - first, 1), 60), field)
  else
    redis.call('HDEL', P .. 'foreign', mark)
    local told = {handler = '', reason = 'not an envelope that this version of busline reads', died_at = now, raw = true, queue = queue}
    bury('unreadable-' .. n, '', letter(told, e))
  end
end

-- what it does not know waits aside, for one who does
local strangers, cache = {}, {}
local function is_known(task)
  if cache[task] == nil then cache[task] = knows(W, task) end
  return cache[task]
end

local function wait_aside(queue, task, e)
  redis.call('RPUSH', aside(queue, task), string.format('%.17g ', now) .. e)
  local told = strangers[queue] or {}
  if not told[task] then redis.call('ZADD', P .. 'unknown:' .. queue, 'NX', now, task) end
  told[task] = (told[task] or 0) + 1
  strangers[queue] = told
end

-- puts one job into the hand; `all`: whether it knows the task or not
local function hand_out(queue, e, all)
  local byte, sub, n = string.byte, string.sub, #jobs + 1
  local version, flags, _, _, _, _, id1, id2, queue1, queue2, task1, task2 = byte(e, 1, 12)
  local size = task2 and id1 * 256 + id2
  local from = size and 20 + size + queue1 * 256 + queue2
  if not size or version ~= 1 or flags >= 16 or size == 0 or #e < from + task1 * 256 + task2 then
    put_aside(queue, e)
    return
  end
  local task = sub(e, from + 1, from + task1 * 256 + task2)
  if not (all or is_known(task)) then
    wait_aside(queue, task, e)
    return
  end
  local id = sub(e, 21, 20 + size)
  if seen[id] then id = id .. '\0' .. seq .. '.' .. n else seen[id] = n end
  jobs[n], names[n] = e, id
end

-- goes through a list while there is room, in jobs and in bytes: `use` says whether it took one; from the first that it did not, all
-- goes back in front. What is put aside on the way counts for the bytes, and there is an end to it
local passed, bytes = 0, 0
local function go_through(key, upto, use)
  while #jobs < upto and passed < wants + 1000 and bytes < room do
    local fits = passed == 0 and 4 or math.min(math.floor((room - bytes) * passed / bytes) + 1, 4 * passed)
    local found = redis.call('LPOP', key, math.min(fits, upto - #jobs, CHUNK))
    if not found then return end
    for n, e in ipairs(found) do
      if (passed > 0 and bytes + #e > room) or not use(e) then
        for back = #found, n, -1 do redis.call('LPUSH', key, found[back]) end
        return
      end
      passed, bytes = passed + 1, bytes + #e
    end
  end
end

-- jobs that others put aside, the oldest first, as long as `use` takes them
local function fetch(queue, task, upto, use)
  local key, unknown = aside(queue, task), P .. 'unknown:' .. queue
  go_through(key, upto, use)
  local first = redis.call('LINDEX', key, 0)
  if first then redis.call('ZADD', unknown, 'GT', (met(first)), task) else redis.call('ZREM', unknown, task) end
end

-- those that it knows
local function fetch_known(queue)
  local unknown, tasks = P .. 'unknown:' .. queue, nil
  if redis.call('EXISTS', P .. 'knows:' .. W) == 0 then
    tasks = redis.call('ZRANGE', unknown, 0, 9)
  else
    tasks = redis.call('ZINTER', 2, unknown, P .. 'knows:' .. W, 'WEIGHTS', 1, 0)
  end
  for _, task in ipairs(tasks) do
    if #jobs >= wants then return end
    fetch(queue, task, wants, function(entry)
      local _, e = met(entry)
      if deaths_of(e) >= 2 then to_back(queue, e) else hand_out(queue, e, true) end
      return true
    end)
  end
end

-- those that nobody has known for too long: some are handed out all the same, to be put into the dead letters
local more = 0
local function fetch_old(queue)
  for _, task in ipairs(redis.call('ZRANGEBYSCORE', P .. 'unknown:' .. queue, '-inf', now - patience, 'LIMIT', 0, 10)) do
    if wake_those_who_know(queue, task) then
      redis.call('ZADD', P .. 'unknown:' .. queue, now, task)
    else
      fetch(queue, task, #jobs + math.max(math.floor((wants - #jobs) / 4), 1), function(entry)
        local first, e = met(entry)
        if first > now - patience then return false end
        hand_out(queue, e, true)
        more = 1
        return true
      end)
    end
    if #jobs >= wants then return end
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
      hand_out(waiting, redis.call('LPOP', P .. 'suspect:' .. waiting))
      each_chunk(#names, into_hand)
      if #names == 1 then redis.call('HSET', hand, ALONE, names[1]) else withheld = 0 end
    end
  elseif wants > 0 and not alone then
    for _, queue in ipairs(queues) do
      if redis.call('EXISTS', P .. 'unknown:' .. queue) == 1 then
        fetch_known(queue)
        fetch_old(queue)
      end
      go_through(P .. 'queue:' .. queue, wants, function(e) hand_out(queue, e); return true end)
    end
    each_chunk(#names, into_hand)
  end
end
local met_first = {}
for queue, told in pairs(strangers) do
  for task, n in pairs(told) do
    wake_those_who_know(queue, task)
    met_first[#met_first + 1] = task
    met_first[#met_first + 1] = n
  end
end

-- when something more is due: one worker keeps the time for all that wait
local next_due
local function earliest(queue)
  local first
  for _, kind in ipairs({'delayed:', 'retrying:', 'unknown:'}) do
    local score = tonumber(redis.call('ZRANGE', P .. kind .. queue, 0, 0, 'WITHSCORES')[2])
    if score and kind == 'unknown:' then score = score + patience end
    if score and (not first or score < first) then first = score end
  end
  return first
end

local function keeps_time(queue, due)
  local keeper = redis.call('HMGET', P .. 'keeper:' .. queue, 'worker', 'due')
  if keeper[1] == W then return true end
  local held = keeper[1] and redis.call('ZSCORE', P .. 'live', keeper[1])
  return not held or tonumber(keeper[2]) > due or tonumber(keeper[2]) <= now
end

if alive and wants > #jobs then
  for _, queue in ipairs(queues) do
    local due = earliest(queue)
    if due and keeps_time(queue, due) then
      redis.call('HSET', P .. 'keeper:' .. queue, 'worker', W, 'due', due)
      if not next_due or due < next_due then next_due = due end
    end
  end
  local over = redis.call('ZRANGEBYSCORE', P .. 'known', '-inf', now, 'LIMIT', 0, 100)
  if #over > 0 then redis.call('ZREM', P .. 'known', unpack(over)) end
end

-- what is left is for another, and for this one in its next turn
for _, queue in ipairs(queues) do
  if redis.call('EXISTS', P .. 'queue:' .. queue, P .. 'suspect:' .. queue) > 0 then
    wake(queue)
    more = 1
  end
end
for queue in pairs(touched) do
  redis.call('SADD', P .. 'queues', queue)
  if redis.call('EXISTS', P .. 'queue:' .. queue, P .. 'suspect:' .. queue) > 0 then wake(queue) end
end
local wait = next_due and string.format('%.17g', math.max(next_due - now, 0)) or ''
return {'done', alive and 1 or 0, refused, failed, jobs, renamed, wait, withheld, more, met_first}
