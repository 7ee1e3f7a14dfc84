-- KEYS: quota.  ARGV: µs of one, µs of all, how many were given before.  Follows gcra.lua.
return { take(KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])) }
