-- Give a lease up without an answer to share, by its owner only, and leave word for those who wait.
-- KEYS: marks lease record chunks
-- ARGV: token fence birth kind report keep_ms root digest subjects*
-- `kind` is one of the letters of leave_record(), or '' for none: whoever waits elects a new leader.
-- Returns "VALID", or why others must not be given the answer: "INVALIDATED" | "FORGOTTEN"
if fence ~= '' and kind ~= 'U' then
  -- They have no end. Those of an answer that is only not to be stored may be read to theirs.
  redis.call('UNLINK', chunks .. ':' .. fence)
end
local reason = fence ~= '' and void_reason(marks, fence, birth, subjects)
if release(lease, token) == 1 then
  if kind ~= '' and not reason then
    leave_record(record, kind, report, server_time(), keep_ms)
  end
  wake(root, digest)
end
return reason or 'VALID'
