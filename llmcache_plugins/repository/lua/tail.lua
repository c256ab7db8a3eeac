-- Read what has been added to a flight's chunks.
-- KEYS: chunks
-- ARGV: fence count
-- Returns {1, batches after the first `count` chunks}, or {0, {}} when the flight's chunks are gone
local key = chunks .. ':' .. fence
if redis.call('EXISTS', key) == 0 then
  return {0, {}}
end
return {1, batches_after(key, count)}
