-- Find entries on the books of a bucket whose digests begin with some digits, a page of the log at a time.
-- KEYS: log
-- ARGV: head cursor
-- Returns {next cursor, members}; the cursor is "0" at the end, a member "digest:length"
local page = redis.call('ZSCAN', log, cursor, 'MATCH', head .. '*', 'COUNT', 500)
local members = {}
for i = 1, #page[2], 2 do
  members[#members + 1] = page[2][i]
end
return {page[1], members}
