-- Store an answer, keep the books and the bounds, release the lease, wake the followers. Asks for the fence,
-- not for the lease: a paid answer whose leader lost its lease is still stored if nothing newer is there.
-- The same fence again is OK: callers may repeat a commit whose reply was lost.
-- KEYS: marks epoch entry lease record log size
-- ARGV: token fence birth version ttl_ms marks_ms oldest_us max_entries max_bytes unshared_ms root digest body subjects*
-- An empty fence asks for one made now (a plain write with no flight behind it).
-- Returns {"OK" | "SUPERSEDED" | "INVALIDATED" | "FORGOTTEN" | "TOO_BIG" | "ERR", evicted, detail}
local now = server_time()
local there = redis.call('MGET', epoch, record)
local current_birth, clock, current_epoch = open_marks(marks, epoch, now, marks_ms, there[1])
local stored_fence = read_header(entry)
if fence == '' then
  fence, birth = digits(next_time(marks, now, clock, tonumber(stored_fence))), current_birth
end

local function finish(status, evicted, detail)
  local released = release(lease, token) == 1
  if status == 'OK' and there[2] then
    redis.call('UNLINK', record)
  elseif released and (status == 'TOO_BIG' or status == 'ERR') then
    -- The next one's answer would not fit either: those who wait need not try one after another.
    leave_record(record, 'U', '', now, unshared_ms)
  end
  if released or status == 'OK' then
    wake(root, digest)
  end
  return {status, evicted, detail}
end

-- Marks of single keys are dropped by age: what is older than they are kept cannot be judged any more.
if now - tonumber(fence) > tonumber(oldest_us) then
  return finish('FORGOTTEN', 0, '')
end
local reason = void_reason(marks, fence, birth, subjects)
if reason then
  return finish(reason, 0, '')
end
if stored_fence and stored_fence > fence then
  return finish('SUPERSEDED', 0, '')
end
if stored_fence == fence then
  return finish('OK', 0, fence)
end

local replaced = length_of(entry)
local value = version .. fence .. birth .. current_epoch .. body
if #value > tonumber(max_bytes) then
  -- It alone would exceed the bound of the bucket: everything else would go, and then it as well.
  return finish('TOO_BIG', 0, '')
end
-- Before the lease is deleted: after any write a server no longer minds its memory limit, and an answer
-- refused for memory must not keep the lease.
local written = redis.pcall('SET', entry, value, 'PX', ttl_ms)
if type(written) == 'table' and written.err then
  return finish('ERR', 0, written.err)
end

if replaced > 0 then
  unbook(log, size, digest .. ':' .. replaced)
  -- The question is the same: its vector lives as long as the new answer.
  redis.call('PEXPIRE', root .. 'vec:' .. digest, ttl_ms)
end
-- Not before what is booked already, even if the clock stepped back: the newest would go first.
local count, sum = book(log, size, digest, #value, math.max(now, clock), marks_ms)
keep_marks(marks, epoch, marks_ms)

-- One write of four looks at some members, so what has expired in between cannot pile up in the log.
if now % 4 == 0 then
  local looked = redis.call('ZRANGE', log, 0, 3)
  local drawn = redis.call('ZRANDMEMBER', log, 12)
  for i = 1, #drawn do
    looked[#looked + 1] = drawn[i]
  end
  for i = 1, #looked do
    if is_gone(root, looked[i]) then
      unbook_gone(root, log, size, looked[i])
    end
  end
end
local evicted = 0
if count > tonumber(max_entries) or sum > tonumber(max_bytes) then
  evicted = evict(log, size, root, tonumber(max_entries), tonumber(max_bytes), 64)
end
return finish('OK', evicted, fence)
