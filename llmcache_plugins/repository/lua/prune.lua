-- Take what has expired or was evicted by the server out of the mentions of vectors, a page at a time.
-- KEYS: vectors
-- ARGV: root cursor
-- Returns the next cursor; "0" at the end
local page = redis.call('ZSCAN', vectors, cursor, 'COUNT', 500)
for i = 1, #page[2], 2 do
  bury_vector(root, page[2][i])
end
return page[1]
