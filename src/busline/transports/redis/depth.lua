-- Each queue in numbers: name, waiting, delayed, retrying, running, and the head, without the body, of the first that waits.
local running, found = {}, {}
local function add_running(queue, n) running[queue] = (running[queue] or 0) + n end

local function held_by(W)
  local hand, queues = P .. 'hand:' .. W, redis.call('SMEMBERS', P .. 'serves:' .. W)
  if #queues == 1 then
    local control = redis.call('HEXISTS', hand, TURN) + redis.call('HEXISTS', hand, ALONE)
    add_running(queues[1], redis.call('HLEN', hand) - control)
  else -- of a worker of several queues only the envelopes tell
    for _, e in ipairs(redis.call('HVALS', hand)) do
      if readable(e) then add_running(queue_of(e), 1) end
    end
  end
end

for _, set in ipairs({redis.call('ZRANGE', P .. 'live', 0, -1), redis.call('SMEMBERS', P .. 'dying')}) do
  for _, W in ipairs(set) do held_by(W) end
end

local function without_body(e)
  if not readable(e) then return string.sub(e, 1, 20) end
  local stop = 20 + u16(e, 7) + u16(e, 9) + u16(e, 11)
  if string.byte(e, 2) % 2 == 1 then stop = stop + 4 + u32(e, stop + 1) end
  return string.sub(e, 1, stop)
end

for _, queue in ipairs(redis.call('SMEMBERS', P .. 'queues')) do
  local first, again = redis.call('LINDEX', P .. 'queue:' .. queue, 0), redis.call('ZCARD', P .. 'retrying:' .. queue)
  for _, task in ipairs(redis.call('ZRANGE', P .. 'unknown:' .. queue, 0, -1)) do
    again = again + redis.call('LLEN', aside(queue, task))
  end
  found[#found + 1] = {
    queue,
    redis.call('LLEN', P .. 'queue:' .. queue) + redis.call('LLEN', P .. 'suspect:' .. queue),
    redis.call('ZCARD', P .. 'delayed:' .. queue),
    again,
    running[queue] or 0,
    first and without_body(first) or '',
  }
end
return found
