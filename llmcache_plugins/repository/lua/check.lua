-- Judge an entry whose `checked` is not the current epoch. Acts only on the entry the caller has read:
-- without the comparison a reader of an old entry would revive an invalidated newer one.
-- KEYS: marks epoch entry log size
-- ARGV: fence birth marks_ms root digest subjects*
-- Returns {"VALID"} | {"INVALID"} | {"GONE"} | {"CHANGED", value, epoch}
local _, _, current = open_marks(marks, epoch, server_time(), marks_ms)
local stored_fence, stored_birth = read_header(entry)
if not stored_fence then
  return {'GONE'}
end
if stored_fence ~= fence or stored_birth ~= birth then
  return {'CHANGED', redis.call('GET', entry), current}
end
if void_reason(marks, fence, birth, subjects) then
  unlink_entry(root, log, size, digest)
  return {'INVALID'}
end
keep_marks(marks, epoch, marks_ms)
-- SETRANGE keeps the TTL.
redis.call('SETRANGE', entry, 48, current)
return {'VALID'}
