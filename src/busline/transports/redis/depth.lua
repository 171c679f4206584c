-- Each queue in numbers: name, waiting, delayed, retrying, running, and the envelope of the first that waits.
local running, found = {}, {}
for _, set in ipairs({redis.call('ZRANGE', P .. 'live', 0, -1), redis.call('SMEMBERS', P .. 'dying')}) do
  for _, W in ipairs(set) do
    for _, e in ipairs(redis.call('HVALS', P .. 'hand:' .. W)) do
      if readable(e) then running[queue_of(e)] = (running[queue_of(e)] or 0) + 1 end
    end
  end
end
for _, queue in ipairs(redis.call('SMEMBERS', P .. 'queues')) do
  found[#found + 1] = {
    queue,
    redis.call('LLEN', P .. 'queue:' .. queue) + redis.call('LLEN', P .. 'suspect:' .. queue),
    redis.call('ZCARD', P .. 'delayed:' .. queue),
    redis.call('ZCARD', P .. 'retrying:' .. queue),
    running[queue] or 0,
    redis.call('LINDEX', P .. 'queue:' .. queue, 0) or '',
  }
end
return found
