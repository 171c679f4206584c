-- What is due in these queues joins those that wait, a few bytes at a time.
local function promote(queues, now)
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
end
