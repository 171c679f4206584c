-- What a worker finished. Of one that lives, everything it has in hand is its own; of another, what is still there.
-- Each job leaves the hand in one step with what its outcome carries, or is refused and nothing of it is done.

-- reads the call's arguments one after the other, from a place on
local function reading(at)
  local read = {}
  function read.one() at = at + 1; return ARGV[at - 1] end
  function read.number() return tonumber(read.one()) end
  function read.list(n) at = at + n; return at - n, at - 1 end
  return read
end

-- counts what became of jobs, to be written once at the end
local function counting()
  local counts = {}
  local function tell(handler, what, n)
    local name = what .. ' ' .. handler
    counts[name] = (counts[name] or 0) + n
  end
  local function write()
    for name, n in pairs(counts) do redis.call('HINCRBY', P .. 'counts', name, n) end
  end
  return tell, write
end

-- plain acknowledgements: handler, n, n fields
local function settle_plain(hand, alive, read, tell, refuse)
  local handler, n = read.one(), read.number()
  local first, last = read.list(n)
  local done = 0
  if alive then
    each_chunk(n, function(from, to) done = done + redis.call('HDEL', hand, unpack(ARGV, first + from - 1, first + to - 1)) end)
  else
    for i = first, last do
      if redis.call('HDEL', hand, ARGV[i]) == 1 then done = done + 1 else refuse(handler, ARGV[i]) end
    end
  end
  if done > 0 then tell(handler, 'handled', done) end
end

-- those that carry one fact and nothing else: handler, n, n times field, key, ttl, value
local function settle_kept(hand, alive, now, read, tell, refuse)
  local handler, n, done = read.one(), read.number(), {}
  for _ = 1, n do
    local field, key, ttl, value = read.one(), read.one(), read.one(), read.one()
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

-- what an outcome carries, by its kind:
--   final: id, unique, remember, letter or '', spare id, n, n sends (queue, id, due, unique, remember, envelope), m, m facts (key, ttl, value)
--   retried: seconds to wait, attempts to add · released: nothing
local function read_outcome(kind, read)
  if kind == 'retried' then return {after = read.number(), add = read.number()} end
  if kind == 'released' then return {} end
  local told = {id = read.one(), unique = read.one(), remember = read.one(), letter = read.one(), spare = read.one(), sends = {}, facts = {}}
  for n = 1, read.number() do
    told.sends[n] = {read.one(), read.one(), read.one(), read.one(), read.one(), read.one()}
  end
  for n = 1, read.number() do
    told.facts[n] = {read.one(), read.one(), read.one()}
  end
  return told
end

-- why what an outcome sends can never be done, or nil
local function impossible(told)
  for _, send in ipairs(told.sends) do
    local kind = redis.call('TYPE', P .. 'queue:' .. send[1]).ok
    if kind ~= 'none' and kind ~= 'list' then return 'the key of the queue ' .. send[1] .. ' holds a ' .. kind end
  end
end

local function apply_final(now, ahead, told, touched)
  finish(now, told.id, told.unique, told.remember)
  if told.letter ~= '' then bury(told.id, told.spare, told.letter) end
  for _, send in ipairs(told.sends) do
    add(send[1], now, ahead, send[2], send[3], send[4], send[5], send[6])
    touched[send[1]] = true
  end
  for _, fact in ipairs(told.facts) do keep(now, unpack(fact)) end
end

-- any other outcomes, one by one: kind, what is counted, handler, field, what it carries. What is released goes back in front, in its order
local function settle_rich(hand, now, ahead, read, tell, refuse, found)
  local released = {}
  for _ = 1, read.number() do
    local kind, what, handler, field = read.one(), read.one(), read.one(), read.one()
    local told = read_outcome(kind, read)
    local e = redis.call('HGET', hand, field)
    local wrong = e and kind == 'final' and impossible(told)
    if not e then
      refuse(handler, field)
    elseif wrong then
      found.failed[#found.failed + 1] = field
      found.failed[#found.failed + 1] = wrong
    else
      if kind == 'final' then
        apply_final(now, ahead, told, found.touched)
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
    found.touched[queue_of(released[n])] = true
  end
end

-- Settles what stands in the arguments from `at` on, four counted lists: refusals that the caller made itself (handler, how many), plain
-- ones, those with one fact, the others. Returns the fields that are refused, those that can never be done and why, and the queues that
-- got something.
local function settle(hand, alive, now, ahead, at)
  local read, found = reading(at), {refused = {}, failed = {}, touched = {}}
  local tell, write = counting()
  local function refuse(handler, field)
    found.refused[#found.refused + 1] = field
    tell(handler, 'refused', 1)
  end
  for _ = 1, read.number() do
    local handler = read.one()
    tell(handler, 'refused', read.number())
  end
  for _ = 1, read.number() do settle_plain(hand, alive, read, tell, refuse) end
  for _ = 1, read.number() do settle_kept(hand, alive, now, read, tell, refuse) end
  settle_rich(hand, now, ahead, read, tell, refuse, found)
  write()
  return found
end
