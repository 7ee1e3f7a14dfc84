-- Ends one session and takes it out of its user's index.
-- KEYS: session.  ARGV: prefix of index keys, hash.  Returns 1, or 0 when there was none.
local record = redis.call('GETDEL', KEYS[1])
if not record then
  return 0
end
-- A record that does not decode is gone all the same; its index entry goes with the next login.
local decoded, session = pcall(cjson.decode, record)
if decoded and type(session) == 'table' and type(session.user_id) == 'string' then
  redis.call('ZREM', ARGV[1] .. session.user_id, ARGV[2])
end
return 1
