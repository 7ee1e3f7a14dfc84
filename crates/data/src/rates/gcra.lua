-- Takes one of a quota (GCRA), after `given` that were served before and are counted whether there is room or not.
-- The key holds when the quota will be whole again, in µs since 1970; without a key it is.
-- Returns 1 or 0, and in how many µs it will be whole.
local function take(key, interval, window, given)
  local time = redis.call('TIME')
  local now = time[1] * 1000000 + time[2]
  local known = math.max(tonumber(redis.call('GET', key) or 0), now)
  local whole_at = math.min(known + given * interval, math.max(known, now + window))
  local granted = whole_at + interval - now <= window
  if granted then
    whole_at = whole_at + interval
  end
  if whole_at > known then
    -- Lua would write a number of this size with an exponent.
    local text = string.format('%.0f', whole_at)
    redis.call('SET', key, text, 'PX', string.format('%.0f', math.ceil((whole_at - now) / 1000)))
  end
  return granted and 1 or 0, math.ceil(whole_at - now)
end
