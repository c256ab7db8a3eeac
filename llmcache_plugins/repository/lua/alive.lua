-- Say which vectors are there, take those away whose answers have gone, and mention again what was forgotten.
-- KEYS: vectors
-- ARGV: root digests*
-- Returns for each how many milliseconds it lives; 0 = it is gone
local now, left = next_mention(vectors, server_time()), {}
for i = 1, #digests do
  left[i] = 0
  if not bury_vector(root, digests[i]) then
    left[i] = math.max(redis.call('PTTL', root .. 'vec:' .. digests[i]), 0)
    if redis.call('ZADD', vectors, 'NX', digits(now + i), digests[i]) == 1 then
      keep_vectors(vectors, left[i])
    end
  end
end
return left
