-- When something more is due: one worker keeps the time for all that wait.
local function earliest(queue, patience)
  local first
  for _, kind in ipairs({'delayed:', 'retrying:', 'unknown:'}) do
    local score = tonumber(redis.call('ZRANGE', P .. kind .. queue, 0, 0, 'WITHSCORES')[2])
    if score and kind == 'unknown:' then score = score + patience end
    if score and (not first or score < first) then first = score end
  end
  return first
end

-- whether this worker keeps the queue's time: no other that lives does, or not for so early a moment
local function is_keeper(W, queue, due, now)
  local keeper = redis.call('HMGET', P .. 'keeper:' .. queue, 'worker', 'due')
  if keeper[1] == W then return true end
  local held = keeper[1] and redis.call('ZSCORE', P .. 'live', keeper[1])
  return not held or tonumber(keeper[2]) > due or tonumber(keeper[2]) <= now
end

-- Returns the moment at which this worker is to look again, or nil. Forgets some ids whose time is over.
local function keep_time(W, queues, now, patience)
  local next_due
  for _, queue in ipairs(queues) do
    local due = earliest(queue, patience)
    if due and is_keeper(W, queue, due, now) then
      redis.call('HSET', P .. 'keeper:' .. queue, 'worker', W, 'due', due)
      if not next_due or due < next_due then next_due = due end
    end
  end
  local over = redis.call('ZRANGEBYSCORE', P .. 'known', '-inf', now, 'LIMIT', 0, 100)
  if #over > 0 then redis.call('ZREM', P .. 'known', unpack(over)) end
  return next_due
end
