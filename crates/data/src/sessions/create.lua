-- Stores a session and its place in the user's index, and ends the user's oldest sessions above the limit.
-- KEYS: session, index.  ARGV: record, idle ms, absolute ms, created at µs, limit, prefix of session keys, hash.
-- Returns 1, or 0 when the id is taken.
if not redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then
  return 0
end
-- Idle sessions expire by themselves and leave their index entry behind.
for _, hash in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do
  if redis.call('EXISTS', ARGV[6] .. hash) == 0 then
    redis.call('ZREM', KEYS[2], hash)
  end
end
local surplus = redis.call('ZCARD', KEYS[2]) + 1 - tonumber(ARGV[5])
if surplus > 0 then
  local oldest = redis.call('ZPOPMIN', KEYS[2], surplus)
  for i = 1, #oldest, 2 do
    redis.call('DEL', ARGV[6] .. oldest[i])
  end
end
redis.call('ZADD', KEYS[2], ARGV[4], ARGV[7])
redis.call('PEXPIRE', KEYS[2], ARGV[3])
return 1
