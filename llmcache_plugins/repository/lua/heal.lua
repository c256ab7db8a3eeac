-- Take what has expired or was evicted by the server out of the books, a page of the log at a time.
-- KEYS: log size
-- ARGV: root cursor
-- Returns the next cursor; "0" at the end
local page = redis.call('ZSCAN', log, cursor, 'COUNT', 500)
for i = 1, #page[2], 2 do
  if is_gone(root, page[2][i]) then
    unbook_gone(root, log, size, page[2][i])
  end
end
if redis.call('EXISTS', log) == 0 then
  redis.call('UNLINK', size)
end
return page[1]
