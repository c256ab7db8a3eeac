-- KEYS: log size
-- ARGV:
-- Returns {entries, bytes}, both upper bounds
return {redis.call('ZCARD', log), tonumber(redis.call('GET', size) or 0)}
