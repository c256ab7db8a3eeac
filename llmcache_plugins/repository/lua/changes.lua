-- Read the vectors of one embedder that were attached after a time, in the order of their attachment.
-- KEYS: vectors
-- ARGV: root field after most
-- Returns {time to go on from, 1 if there are more, rows, how many are mentioned in all}
-- A row is {digest, milliseconds, scope, canonical, text, data}.
local newest = redis.call('ZRANGE', vectors, -1, -1, 'WITHSCORES')
if newest[2] and tonumber(newest[2]) < tonumber(after) then
  -- It is another set than the one that was read: lost, or of a server whose clock is behind.
  after = digits(0)
end
local page = redis.call('ZRANGE', vectors, '(' .. after, '+inf', 'BYSCORE', 'LIMIT', 0, most, 'WITHSCORES')
local rows = {}
for i = 1, #page, 2 do
  local key = root .. 'vec:' .. page[i]
  local held = redis.pcall('HMGET', key, field, 's', 'c', 't')
  if held[1] and held[2] and held[3] and held[4] then
    rows[#rows + 1] = {page[i], redis.call('PTTL', key), held[2], held[3], held[4], held[1]}
  end
  after = digits(tonumber(page[i + 1]))
end
return {after, #page == 2 * tonumber(most) and 1 or 0, rows, redis.call('ZCARD', vectors)}
