-- Forgets some jobs of a queue that nobody has in hand. ARGV: queue. Returns how many; 0: there are none left.
local queue, count, bytes = ARGV[1], 0, 0

-- its unique key is free, its id new again
local function free(e)
  count, bytes = count + 1, bytes + #e
  if not readable(e) then return end
  local id, unique = id_of(e), extra(e, 'u')
  if unique and redis.call('HGET', P .. 'locks', unique) == id then redis.call('HDEL', P .. 'locks', unique) end
  if tonumber(redis.call('ZSCORE', P .. 'known', id) or '0') == tonumber(LIVING) then redis.call('ZREM', P .. 'known', id) end
end

local function full() return count >= CHUNK or bytes >= BYTES end

local function clear_list(key, is_aside)
  while not full() do
    local e = redis.call('LPOP', key)
    if not e then return end
    if is_aside then _, e = met(e) end
    free(e)
  end
end

clear_list(P .. 'queue:' .. queue)
clear_list(P .. 'suspect:' .. queue)
for _, kind in ipairs({'delayed:', 'retrying:'}) do
  while not full() do
    local field = redis.call('ZPOPMIN', P .. kind .. queue)[1]
    if not field then break end
    local e = redis.call('HGET', P .. 'later', field)
    redis.call('HDEL', P .. 'later', field)
    free(e or '')
  end
end
for _, task in ipairs(redis.call('ZRANGE', P .. 'unknown:' .. queue, 0, CHUNK)) do
  clear_list(aside(queue, task), true)
  if redis.call('EXISTS', aside(queue, task)) == 0 then redis.call('ZREM', P .. 'unknown:' .. queue, task) end
end
return count
