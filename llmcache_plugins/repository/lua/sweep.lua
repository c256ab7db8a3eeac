-- Unlink those of the named keys that an invalidation of the namespace has voided; newer ones stay.
-- KEYS: marks log size
-- ARGV: root subject names*
-- A name is what follows the root: "resp:<digest>", "lease:...", "error:...", "vec:..." or
-- "chunks:<digest>:<fence>".
-- Returns how many entries were unlinked
local state = redis.call('HMGET', marks, 'floor', subject)
-- Without the marks nothing can be told to be newer than the invalidation.
local last = state[1] and math.max(tonumber(state[1]), tonumber(state[2] or 0)) or LAST_TIME

local function is_void(fence, birth)
  return not fence or void_reason(marks, fence, birth, {subject})
end

local unlinked = 0
for i = 1, #names do
  local key = root .. names[i]
  local what, digest, its_fence = string.match(names[i], '^(%l+):(%x+):?(%d*)$')
  if what == 'resp' then
    if is_void(read_header(key)) then
      unlinked = unlinked + unlink_entry(root, log, size, digest)
    end
  elseif what == 'lease' then
    local _, fence, birth = read_lease(key)
    if is_void(fence, birth) then
      -- Whoever waits for it starts anew now, not when it would have been renewed.
      redis.call('UNLINK', key)
      wake(root, digest)
    end
  elseif what == 'vec' then
    -- One that has its answer goes with that.
    bury_vector(root, digest)
  else
    local _, left = read_record(key)
    if tonumber(what == 'chunks' and its_fence or left or 0) <= last then
      redis.call('UNLINK', key)
    end
  end
end
return unlinked
