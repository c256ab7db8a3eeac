-- Evict the least recently used entries of a bucket, at most 500 a call.
-- KEYS: log size
-- ARGV: root keep
-- Returns {evicted, entries left}
local evicted = evict(log, size, root, tonumber(keep), math.huge, 500)
return {evicted, redis.call('ZCARD', log)}
