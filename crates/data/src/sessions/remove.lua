-- Ends one session and takes it out of its user's index.
-- KEYS: session.  ARGV: prefix of index keys, hash.  Returns 1, or 0 when there was none.
local record = redis.call('GETDEL', KEYS[1])
if not record then
  return 0
end
redis.call('ZREM', ARGV[1] .. cjson.decode(record).user_id, ARGV[2])
return 1
