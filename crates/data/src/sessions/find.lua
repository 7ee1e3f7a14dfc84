-- Finds a session, starts its idle time anew, and takes one of its user's quota. Follows gcra.lua.
-- KEYS: session, what it has seen.  ARGV: idle ms, and for a quota: prefix of users' quotas, µs of one, µs of all.
-- Returns the record or nothing, what it has seen, and what `take` returned.
local record = redis.call('GETEX', KEYS[1], 'PX', ARGV[1])
local granted, whole_in = 1, 0
if record and ARGV[2] then
  local decodes, session = pcall(cjson.decode, record)
  if decodes and type(session.user_id) == 'string' then
    granted, whole_in = take(ARGV[2] .. session.user_id, tonumber(ARGV[3]), tonumber(ARGV[4]), 0)
  end
end
return { record, redis.call('HGETALL', KEYS[2]), granted, whole_in }
