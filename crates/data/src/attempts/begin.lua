-- Counts an attempt under every key, unless one of them has to wait.
-- KEYS: what is tried and from where.  ARGV for each: attempts that are free, first wait, longest wait, and
-- when attempts are forgotten, in ms.  Returns how long each has to wait in ms; the attempt was counted when none has to.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local waits, longest_wait = {}, 0
for i, key in ipairs(KEYS) do
  waits[i] = math.max(0, tonumber(redis.call('HGET', key, 'until') or 0) - now)
  longest_wait = math.max(longest_wait, waits[i])
end
if longest_wait > 0 then
  return waits
end
for i, key in ipairs(KEYS) do
  local free, delay, longest, forgotten = unpack(ARGV, i * 4 - 3, i * 4)
  local attempts = redis.call('HINCRBY', key, 'attempts', 1)
  if attempts >= tonumber(free) then
    local after = math.min(delay * 2 ^ (attempts - free), tonumber(longest))
    redis.call('HSET', key, 'until', string.format('%.0f', now + after))
  end
  redis.call('PEXPIRE', key, forgotten)
end
return waits
