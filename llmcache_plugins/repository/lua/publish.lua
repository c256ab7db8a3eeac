-- Append a batch of a flight's chunks for those who follow it, or keep what is there alive.
-- KEYS: marks lease chunks
-- ARGV: fence first last data is_end most keep_ms root digest subjects*
-- The batch holds the chunks `first` to `last`, counted from 1; none when last < first. `most` is how many
-- batches are kept: what is older can no longer be followed from its start.
-- Returns 1, or 0 when nobody can follow: what came before is lost, or the flight was over or void before it began
local key = chunks .. ':' .. fence
if redis.call('EXISTS', key) == 0 then
  local _, its_fence, birth = read_lease(lease)
  if tonumber(first) > 1 or its_fence ~= fence then
    return 0
  end
  -- Once an invalidation is acknowledged no new key holds what it voids: a sweep finds all there are.
  if void_reason(marks, fence, birth, subjects) then
    return 0
  end
end
if tonumber(last) >= tonumber(first) or is_end == '1' then
  local id = last .. (is_end == '1' and '-1' or '-0')
  local added = redis.pcall('XADD', key, 'MAXLEN', '=', most, id, 'data', data, 'end', is_end)
  -- A batch that is there already was sent again because its reply was lost.
  if type(added) == 'table' and added.err and not string.find(added.err, 'equal or smaller') then
    return 0
  end
  wake(root, digest)
end
redis.call('PEXPIRE', key, keep_ms)
return 1
