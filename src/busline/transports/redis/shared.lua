-- What every script begins with. KEYS[1] is the namespace's prefix, with its hash tag; docs/redis.md describes the keys.
local P, LAYOUT = KEYS[1], '1'

-- keys of a newer layout are left alone, whatever is asked; of an older one there are none
local layout = redis.call('GET', P .. 'layout')
if not layout then
  redis.call('SET', P .. 'layout', LAYOUT)
elseif layout ~= LAYOUT then
  return redis.error_reply('LAYOUT ' .. LAYOUT .. ' ' .. layout)
end

local LIVING, CHUNK, BYTES = '1e15', 1000, 4194304
local TURN, ALONE = '\0turn', '\0alone'

local function server_time()
  local t = redis.call('TIME')
  return t[1] + t[2] / 1000000
end

local function server_now() return math.floor(server_time() * 1000) end

-- the engine's time, and how far it is ahead of the caller's clock. A clock that is moved by hand, marked by '=', is the engine's
local function times(told)
  local theirs = tonumber(told)
  if not theirs then return tonumber(string.sub(told, 2)), 0 end
  local now = server_time()
  return now, now - theirs
end

-- the envelope: fixed places, numbers big-endian
local function u16(e, at) return string.byte(e, at) * 256 + string.byte(e, at + 1) end
local function u32(e, at) return u16(e, at) * 65536 + u16(e, at + 2) end
local function id_of(e) return string.sub(e, 21, 20 + u16(e, 7)) end
local function queue_of(e) local at = 21 + u16(e, 7); return string.sub(e, at, at + u16(e, 9) - 1) end
local function task_of(e) local at = 21 + u16(e, 7) + u16(e, 9); return string.sub(e, at, at + u16(e, 11) - 1) end
local function deaths_of(e) return string.byte(e, 5) end

local function readable(e)
  if #e < 20 or string.byte(e, 1) ~= 1 or string.byte(e, 2) >= 16 then return false end
  local rest = 20 + u16(e, 7) + u16(e, 9) + u16(e, 11)
  return #e >= rest and u16(e, 7) > 0
end

local function with_attempts(e, n)
  n = math.min(n, 65535)
  return string.sub(e, 1, 2) .. string.char(math.floor(n / 256), n % 256) .. string.sub(e, 5)
end

local function with_deaths(e, n) return string.sub(e, 1, 4) .. string.char(math.min(n, 255)) .. string.sub(e, 6) end

-- one of the fields between task and body, or nil
local function extra(e, tag)
  if string.byte(e, 2) % 2 == 0 then return nil end
  local at = 21 + u16(e, 7) + u16(e, 9) + u16(e, 11)
  local stop = at + 4 + u32(e, at)
  at = at + 4
  while at < stop do
    local n = u32(e, at + 1)
    if string.sub(e, at, at) == tag then return string.sub(e, at + 5, at + 4 + n) end
    at = at + 5 + n
  end
end

local function each_chunk(n, call)
  for first = 1, n, CHUNK do call(first, math.min(first + CHUNK - 1, n)) end
end

-- one token wakes one idle worker; there is never more than one for a queue, nor for a worker that is meant alone
local function wake(whom)
  local key = P .. 'wake:' .. whom
  if redis.call('EXISTS', key) == 0 then redis.call('RPUSH', key, '1') end
end

local function line_of(queue, e)
  if string.byte(e, 1) == 1 and #e >= 20 and deaths_of(e) >= 2 then return P .. 'suspect:' .. queue end
  return P .. 'queue:' .. queue
end

local function to_front(queue, e) redis.call('LPUSH', line_of(queue, e), e) end
local function to_back(queue, e) redis.call('RPUSH', line_of(queue, e), e) end

local function delay(kind, queue, due, e)
  local id, n = id_of(e), 0
  local field = id
  while redis.call('HSETNX', P .. 'later', field, e) == 0 do
    n = n + 1
    field = id .. '\0' .. n
  end
  local key = P .. kind .. ':' .. queue
  redis.call('ZADD', key, due, field)
  if redis.call('ZRANGE', key, 0, 0)[1] == field then wake(queue) end
end

local function known(id, now)
  local kept = redis.call('ZSCORE', P .. 'known', id)
  return kept and tonumber(kept) > now
end

-- where the jobs of a task wait that whoever met them does not know: each behind the time at which it was first met, and a blank
local function aside(queue, task) return P .. 'aside:' .. #queue .. ':' .. queue .. ':' .. task end

local function met(entry)
  local at = string.find(entry, ' ', 1, true)
  return tonumber(string.sub(entry, 1, at - 1)), string.sub(entry, at + 1)
end

-- a worker that named no tasks knows all
local function knows(W, task)
  return redis.call('SISMEMBER', P .. 'knows:' .. W, task) == 1 or redis.call('EXISTS', P .. 'knows:' .. W) == 0
end

-- the workers that live and know a task of a queue are told that something waits there for them; returns whether there are any
local function wake_those_who_know(queue, task)
  local found = false
  for _, W in ipairs(redis.call('ZRANGE', P .. 'live', 0, -1)) do
    if redis.call('SISMEMBER', P .. 'serves:' .. W, queue) == 1 and knows(W, task) then
      found = true
      wake(W)
    end
  end
  return found
end

-- how long a worker's lease is, in ms, and the connection on which it beats
local function lease_of(W)
  local told = redis.call('HGET', P .. 'leases', W) or ''
  return tonumber(string.match(told, '^%d+')), string.match(told, ' (%d+)$') or ''
end

local function forget(W)
  redis.call('DEL', P .. 'knows:' .. W, P .. 'serves:' .. W, P .. 'wake:' .. W)
  redis.call('HDEL', P .. 'leases', W)
end

-- adds a job that asks for more than a place in the list, due by the engine's time + `ahead`; returns the id of the one that is
-- there already
local function add(queue, now, ahead, id, due, unique, remember, e)
  if remember ~= '' and known(id, now) then return id end
  if unique ~= '' then
    local holder = redis.call('HGET', P .. 'locks', unique)
    if holder then return holder end
    redis.call('HSET', P .. 'locks', unique, id)
  end
  if remember ~= '' then redis.call('ZADD', P .. 'known', LIVING, id) end
  local starts = due ~= '' and tonumber(due) + ahead
  if starts and starts > now then delay('delayed', queue, starts, e) else to_back(queue, e) end
end

-- a job is final: its lock is free, its id remembered if it asked for that
local function finish(now, id, unique, remember)
  if unique ~= '' and redis.call('HGET', P .. 'locks', unique) == id then redis.call('HDEL', P .. 'locks', unique) end
  if remember ~= '' then redis.call('ZADD', P .. 'known', now + tonumber(remember), id) end
end

local function bury(id, spare, letter)
  if redis.call('HEXISTS', P .. 'dead', id) == 1 then id = spare end
  redis.call('HSET', P .. 'dead', id, letter)
  redis.call('ZADD', P .. 'dead:order', redis.call('INCR', P .. 'dead:last'), id)
end

-- a letter written here: what a script knows of a death, and the envelope
local function letter(told, e)
  local head = cjson.encode(told)
  local n = #head
  return string.char(math.floor(n / 16777216), math.floor(n / 65536) % 256, math.floor(n / 256) % 256, n % 256) .. head .. e
end

local function keep(now, key, ttl, value)
  local ms = math.max(math.ceil(math.min(tonumber(ttl), 1e10) * 1000), 1)
  redis.call('SET', P .. 'fact:' .. key, string.format('%.17g', now + tonumber(ttl)) .. ' ' .. value, 'PX', ms)
  redis.call('PUBLISH', P .. 'fact:' .. key, '1')
end

