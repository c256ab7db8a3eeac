-- Lay the vector of a question beside its answer, for as long as that lives. Only if the answer is still the one
-- of this fence: a vector without one would be met for nothing by everybody who asks something similar.
-- KEYS: entry vector vectors
-- ARGV: fence root digest scope text canonical field data
-- Returns for how many milliseconds it lives; 0 if the answer is gone or another
if read_header(entry) ~= fence then
  return 0
end
local left = redis.call('PTTL', entry)
if left < 1 then
  return 0
end
local there = redis.pcall('HMGET', vector, 's', 'c', 't')
if there.err or there[1] ~= scope or there[2] ~= canonical or there[3] ~= text then
  -- Those of other embedders are of another text.
  redis.call('UNLINK', vector)
end
redis.call('HSET', vector, 's', scope, 'c', canonical, 't', text, 'f', fence, field, data)
redis.call('PEXPIRE', vector, left)
local now = next_mention(vectors, server_time())
redis.call('ZADD', vectors, digits(now), digest)
keep_vectors(vectors, left)

-- One of four looks at some others, so that what has expired in between cannot pile up.
if now % 4 == 0 then
  local looked = redis.call('ZRANGE', vectors, 0, 3)
  local drawn = redis.call('ZRANDMEMBER', vectors, 12)
  for i = 1, #drawn do
    looked[#looked + 1] = drawn[i]
  end
  for i = 1, #looked do
    bury_vector(root, looked[i])
  end
end
return left
