-- What a worker gets. `to`: worker, hand, seq, wants, room (bytes at most), patience (seconds for which a job waits for one who knows its
-- task), lonely (nothing else is in hand in its process), alone (the job that it runs alone, if any), now. Besides, while it goes on:
-- jobs and the names under which they will be in hand, renamed (which of them are not under their id), passed and bytes (what was gone
-- through), strangers (how many jobs of each task that it does not know were met), more (whether some were left).

-- an envelope of another version: perhaps a newer worker reads it. A quarter of an hour, then dead; other bytes are dead at once
local function put_aside(to, queue, e)
  local now, mark, version, flags = to.now, redis.sha1hex(e), string.byte(e, 1, 2)
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

local function wait_aside(to, queue, task, e)
  redis.call('RPUSH', aside(queue, task), string.format('%.17g ', to.now) .. e)
  local told = to.strangers[queue] or {}
  if not told[task] then redis.call('ZADD', P .. 'unknown:' .. queue, 'NX', to.now, task) end
  told[task] = (told[task] or 0) + 1
  to.strangers[queue] = told
end

-- where id and task stand in envelopes that begin with these twelve bytes: those of one task, for the most part. False: they are none
local function shape_of(head)
  if #head < 12 then return false end
  local version, flags = string.byte(head, 1, 2)
  local size = u16(head, 7)
  if version ~= 1 or flags >= 16 or size == 0 then return false end
  local from = 20 + size + u16(head, 9)
  return {id = 20 + size, from = from + 1, stop = from + u16(head, 11)}
end

-- puts one job into the hand, or aside; `all`: whether it knows the task or not. Returns true: it took it
local function hand_one(to, queue, e, all)
  local sub = string.sub
  local head = sub(e, 1, 12)
  local shape = to.shapes[head]
  if shape == nil then
    shape = shape_of(head)
    to.shapes[head] = shape
  end
  if not shape or #e < shape.stop then
    put_aside(to, queue, e)
    return true
  end
  local task = sub(e, shape.from, shape.stop)
  local is_known = all or to.tasks[task]
  if is_known == nil then
    is_known = knows(to.worker, task)
    to.tasks[task] = is_known
  end
  if not is_known then
    wait_aside(to, queue, task, e)
    return true
  end
  local jobs = to.jobs
  local n, id = #jobs + 1, sub(e, 21, shape.id)
  if to.seen[id] then
    id = id .. '\0' .. to.seq .. '.' .. n
    to.renamed[n] = true
  else
    to.seen[id] = true
  end
  jobs[n], to.names[n] = e, id
  return true
end

-- goes through a list while there is room, in jobs and in bytes: `use` says whether it took one; from the first that it did not, all
-- goes back in front. What is put aside on the way counts for the bytes, and there is an end to it
local function go_through(to, queue, key, upto, use)
  local jobs, most, room = to.jobs, to.wants + 1000, to.room
  local passed, bytes = to.passed, to.bytes
  while #jobs < upto and passed < most and bytes < room do
    local fits = passed == 0 and 4 or math.min(math.floor((room - bytes) * passed / bytes) + 1, 4 * passed)
    local found = redis.call('LPOP', key, math.min(fits, upto - #jobs, CHUNK))
    if not found then break end
    for n, e in ipairs(found) do
      if (passed > 0 and bytes + #e > room) or not use(to, queue, e) then
        for back = #found, n, -1 do redis.call('LPUSH', key, found[back]) end
        upto = 0
        break
      end
      passed, bytes = passed + 1, bytes + #e
    end
  end
  to.passed, to.bytes = passed, bytes
end

-- jobs that others put aside, the oldest first, as long as `use` takes them
local function fetch_aside(to, queue, task, upto, use)
  local key, unknown = aside(queue, task), P .. 'unknown:' .. queue
  go_through(to, queue, key, upto, use)
  local first = redis.call('LINDEX', key, 0)
  if first then redis.call('ZADD', unknown, 'GT', (met(first)), task) else redis.call('ZREM', unknown, task) end
end

-- those that it knows
local function fetch_known(to, queue)
  local unknown, tasks = P .. 'unknown:' .. queue, nil
  if redis.call('EXISTS', P .. 'knows:' .. to.worker) == 0 then
    tasks = redis.call('ZRANGE', unknown, 0, 9)
  else
    tasks = redis.call('ZINTER', 2, unknown, P .. 'knows:' .. to.worker, 'WEIGHTS', 1, 0)
  end
  for _, task in ipairs(tasks) do
    if #to.jobs >= to.wants then return end
    fetch_aside(to, queue, task, to.wants, function(_, _, entry)
      local _, e = met(entry)
      if deaths_of(e) < 2 then return hand_one(to, queue, e, true) end
      to_back(queue, e)
      return true
    end)
  end
end

-- those that nobody has known for too long: some are handed out all the same, to be put into the dead letters
local function fetch_old(to, queue)
  local since = to.now - to.patience
  for _, task in ipairs(redis.call('ZRANGEBYSCORE', P .. 'unknown:' .. queue, '-inf', since, 'LIMIT', 0, 10)) do
    if wake_those_who_know(queue, task) then
      redis.call('ZADD', P .. 'unknown:' .. queue, to.now, task)
    else
      fetch_aside(to, queue, task, #to.jobs + math.max(math.floor((to.wants - #to.jobs) / 4), 1), function(_, _, entry)
        local first, e = met(entry)
        if first > since then return false end
        to.more = true
        return hand_one(to, queue, e, true)
      end)
    end
    if #to.jobs >= to.wants then return end
  end
end

-- gives those another name whose id is in hand already
local function rename_taken(to, first, stop)
  for n, held in ipairs(redis.call('HMGET', to.hand, unpack(to.names, first, stop))) do
    if held then
      local at = first + n - 1
      to.names[at] = to.names[at] .. '\0' .. to.seq .. '.' .. at
      to.renamed[at] = true
    end
  end
end

-- under its id each. In an empty hand, where only the turn's number stands, no id is taken
local function into_hand(to)
  local names, jobs, empty = to.names, to.jobs, redis.call('HLEN', to.hand) == 1
  each_chunk(#names, function(first, stop)
    if not empty then rename_taken(to, first, stop) end
    local flat, at = {}, 0
    for n = first, stop do
      flat[at + 1], flat[at + 2] = names[n], jobs[n]
      at = at + 2
    end
    redis.call('HSET', to.hand, unpack(flat))
  end)
end

local function suspect_among(queues)
  for _, queue in ipairs(queues) do
    if redis.call('EXISTS', P .. 'suspect:' .. queue) == 1 then return queue end
  end
end

-- the job that ended two workers: only where nothing else is in hand. Returns whether it is still to be waited for
local function hand_out_alone(to, queue)
  if not to.lonely or redis.call('HLEN', to.hand) > 1 then return true end
  hand_one(to, queue, redis.call('LPOP', P .. 'suspect:' .. queue))
  into_hand(to)
  if #to.names ~= 1 then return false end
  redis.call('HSET', to.hand, ALONE, to.names[1])
  return true
end

-- Hands out of these queues what the worker wants. Returns whether some are withheld: one of them must run alone first.
local function hand_out(to, queues)
  to.jobs, to.names, to.seen, to.renamed, to.shapes, to.tasks = {}, {}, {}, {}, {}, {}
  to.strangers, to.passed, to.bytes, to.more = {}, 0, 0, false
  if to.alone or to.wants == 0 then return to.alone end
  local suspect = suspect_among(queues)
  if suspect then return hand_out_alone(to, suspect) end
  for _, queue in ipairs(queues) do
    if redis.call('EXISTS', P .. 'unknown:' .. queue) == 1 then
      fetch_known(to, queue)
      fetch_old(to, queue)
    end
    go_through(to, queue, P .. 'queue:' .. queue, to.wants, hand_one)
  end
  into_hand(to)
  return false
end
