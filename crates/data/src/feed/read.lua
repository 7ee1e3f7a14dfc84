-- Reads a topic: from a place on, that included, or without one its end.
-- KEYS: stream, epoch.  ARGV: place or nothing, entries at most, an epoch to begin with.
-- Returns the epoch, the place of the newest entry, and then of each entry: place, the one before it, id, key, body.
local epoch = redis.call('GET', KEYS[2])
if not epoch then
  epoch = ARGV[3]
  redis.call('SET', KEYS[2], epoch)
  redis.call('DEL', KEYS[1])
end
local newest = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
local found = { epoch, newest and newest[1] or '0-0' }
local entries
if ARGV[1] == '' then
  local backwards = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', ARGV[2])
  entries = {}
  for i = #backwards, 1, -1 do
    entries[#entries + 1] = backwards[i]
  end
else
  entries = redis.call('XRANGE', KEYS[1], ARGV[1], '+', 'COUNT', ARGV[2])
end
for _, entry in ipairs(entries) do
  found[#found + 1] = entry[1]
  -- The fields as `publish.lua` writes them: p, i, k, b.
  for field = 2, 8, 2 do
    found[#found + 1] = entry[2][field]
  end
end
return found
