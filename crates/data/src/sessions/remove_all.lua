-- Ends every session of one user. As one script, because a session created in between would survive.
-- KEYS: index.  ARGV: prefix of session keys.  Returns how many were ended.
local ended = 0
for _, hash in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  ended = ended + redis.call('DEL', ARGV[1] .. hash)
end
redis.call('DEL', KEYS[1])
return ended
