-- The entries of a bucket that were used last.
-- KEYS: log
-- ARGV: most
-- Returns member ("digest:length"), time, member, time, ...; the latest first
return redis.call('ZRANGE', log, 0, most - 1, 'REV', 'WITHSCORES')
