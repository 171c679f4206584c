-- Facts by key, of as many as there is room for. ARGV: keys. Returns what is kept under each.
local found, spent = {}, 0
for n = 1, #ARGV do
  found[n] = redis.call('GET', P .. 'fact:' .. ARGV[n])
  spent = spent + #(found[n] or '')
  if spent > BYTES then break end
end
return found
