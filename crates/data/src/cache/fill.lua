-- Replaces what a loader has seen under KEYS[1], unless somebody else has changed it since: then that is newer, and is
-- the answer. Where nothing is left of what was seen, nothing newer is there either.
-- ARGV: the head of what was seen, or '' for nothing; the bytes to store, or '' to give a claim back; milliseconds.
local there = redis.call('get', KEYS[1])
if there and (ARGV[1] == '' or string.sub(there, 1, #ARGV[1]) ~= ARGV[1]) then
    return there
end
if ARGV[2] ~= '' then
    redis.call('set', KEYS[1], ARGV[2], 'px', ARGV[3])
elseif there then
    redis.call('del', KEYS[1])
end
return false
