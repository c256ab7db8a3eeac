-- Note the reads of a while: what was read is evicted last. Entries the log has lost come back to it.
-- KEYS: marks log size
-- ARGV: marks_ms root members*
-- Returns how many were noted
local now, noted = math.max(server_time(), tonumber(redis.call('HGET', marks, 'clock') or 0)), 0
for i = 1, #members do
  if not is_gone(root, members[i]) then
    local digest, length = string.match(members[i], '^(%x+):(%d+)$')
    book(log, size, digest, tonumber(length), now, marks_ms)
    noted = noted + 1
  end
end
return noted
