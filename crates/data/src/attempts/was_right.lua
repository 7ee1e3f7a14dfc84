-- The attempt was right: what was tried begins anew, and from where it came one attempt less is held against it.
-- KEYS: what was tried, from where.
redis.call('DEL', KEYS[1])
if redis.call('EXISTS', KEYS[2]) == 1 then
  redis.call('HINCRBY', KEYS[2], 'attempts', -1)
  redis.call('HDEL', KEYS[2], 'until')
end
return 1
