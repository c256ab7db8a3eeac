-- Read a day's ledger.
-- KEYS: day
-- ARGV:
-- Returns {name, amount, ...}, empty for a day without one.
return redis.call('HGETALL', day)
