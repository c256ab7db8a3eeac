-- Keep a lease, or take it again if it was lost to eviction, a restart or a fail-over. A flight that an
-- invalidation has voided loses it, so that its followers start anew instead of waiting for nothing.
-- KEYS: marks epoch lease
-- ARGV: token fence birth lease_ms marks_ms root digest subjects*
-- Returns "OK" | "LOST"
open_marks(marks, epoch, server_time(), marks_ms)
keep_marks(marks, epoch, marks_ms)
if void_reason(marks, fence, birth, subjects) then
  if release(lease, token) == 1 then
    wake(root, digest)
  end
  return 'LOST'
end
if redis.call('SET', lease, lease_of(token, fence, birth, subjects), 'NX', 'PX', lease_ms) then
  return 'OK'
end
if read_lease(lease) ~= token then
  return 'LOST'
end
redis.call('PEXPIRE', lease, lease_ms)
return 'OK'
