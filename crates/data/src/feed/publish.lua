-- Appends events to a topic and publishes each with its place there, that of the one before it, and the topic's epoch.
-- KEYS: stream, epoch.  ARGV: channel, entries to keep, an epoch to begin with, then for each event: id, key, body.
-- Returns the place of the last one.
local epoch = redis.call('GET', KEYS[2])
if not epoch then
  -- A place of before means nothing any more, whatever is left of the stream.
  epoch = ARGV[3]
  redis.call('SET', KEYS[2], epoch)
  redis.call('DEL', KEYS[1])
end
local newest = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
local previous = newest and newest[1] or '0-0'
for i = 4, #ARGV, 3 do
  local id, key, body = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  local place = redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[2], '*', 'p', previous, 'i', id, 'k', key, 'b', body)
  redis.call('PUBLISH', ARGV[1], table.concat({ epoch, place, previous, id, key, body }, ' '))
  previous = place
end
return previous
