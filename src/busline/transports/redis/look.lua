-- Where jobs stand: by where each is not waiting, and exactly while little waits. ARGV: the caller's time, how many waiting jobs are looked
-- through, and how many bytes of them at most, ids. Returns a list for each, of as many as there is room for: state, attempt, letter.
local now, few, room, spent = times(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), 0
local workers = {redis.call('ZRANGE', P .. 'live', 0, -1), redis.call('SMEMBERS', P .. 'dying')}

local function in_hand(id)
  for _, set in ipairs(workers) do
    for _, W in ipairs(set) do
      local e = redis.call('HGET', P .. 'hand:' .. W, id)
      if e then return e end
    end
  end
end

local function elsewhere(id)
  local running = in_hand(id)
  if running then return {'running', u16(running, 3) + 1}, #running end
  local later = redis.call('HGET', P .. 'later', id)
  if later then return {'delayed', u16(later, 3)}, #later end
  local dead = redis.call('HGET', P .. 'dead', id)
  if dead then return {'failed', 0, dead}, #dead end
  local kept = redis.call('GETRANGE', P .. 'fact:result/' .. id, 0, 63)
  if kept ~= '' and tonumber(string.match(kept, '^[^ ]+')) > now then return {'succeeded', 0}, 0 end
end

-- the lists of those that wait; nil where there is too much in them
local function lines()
  local found, waiting, bytes = {}, 0, 0
  local function line(key, is_aside)
    local n = redis.call('LLEN', key)
    if n > 0 then
      waiting = waiting + n
      found[#found + 1] = {key, is_aside}
    end
  end
  for _, queue in ipairs(redis.call('SMEMBERS', P .. 'queues')) do
    line(P .. 'queue:' .. queue, false)
    line(P .. 'suspect:' .. queue, false)
    for _, task in ipairs(redis.call('ZRANGE', P .. 'unknown:' .. queue, 0, few)) do line(aside(queue, task), true) end
  end
  if waiting > few then return nil end
  for _, one in ipairs(found) do bytes = bytes + redis.call('MEMORY', 'USAGE', one[1], 'SAMPLES', 0) end
  if bytes <= room then return found end
end

local attempts
local function look_through()
  attempts = {}
  local found = lines()
  if not found then return false end
  for _, line in ipairs(found) do
    for _, e in ipairs(redis.call('LRANGE', line[1], 0, -1)) do
      if line[2] then _, e = met(e) end
      if readable(e) then attempts[id_of(e)] = u16(e, 3) end
    end
  end
  return true
end

local told, exact = {}, nil
for n = 4, #ARGV do
  local id = ARGV[n]
  local found, size = elsewhere(id)
  if not found then
    if exact == nil then exact = look_through() end
    if exact then
      found = attempts[id] and {'waiting', attempts[id]} or {'unknown', 0}
    else
      found = {tonumber(redis.call('ZSCORE', P .. 'known', id) or '0') == tonumber(LIVING) and 'waiting' or 'unseen', 0}
    end
  end
  told[#told + 1] = found
  spent = spent + (size or 0)
  if spent > BYTES then break end
end
return told
