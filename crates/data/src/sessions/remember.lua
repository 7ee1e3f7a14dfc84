-- Keeps the newest of what a session's requests have to see.
-- KEYS: what it has seen.  ARGV: time to live in ms, then pairs of a cluster and a position, which sort as text.
for i = 2, #ARGV, 2 do
  local known = redis.call('HGET', KEYS[1], ARGV[i])
  if not known or known < ARGV[i + 1] then
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
  end
end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return 1
