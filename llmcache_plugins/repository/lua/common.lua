-- Shared by every script. Numbers of 16 digits are microseconds on the server's clock; Lua's ".." would
-- turn 1764000000123456 into 1.7640000001235e+15, so they are always made with digits().

local function digits(number)
  return string.format('%016.0f', number)
end

-- A time in the year 2223, and below 2^53: no fence of ours is later, and numbers above it are not exact.
local LAST_TIME = 8000000000000000

local function server_time()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000000 + tonumber(time[2])
end

local function raise_ttl(key, milliseconds)
  if redis.call('PTTL', key) < tonumber(milliseconds) then
    -- A tenth more than needed, so that not every script has to write.
    redis.call('PEXPIRE', key, string.format('%.0f', milliseconds * 1.1))
  end
end

-- The marks of a bucket: birth, clock, floor, a copy of the epoch, and one field per invalidated subject.
-- They can be evicted like any other key. A new hash has a new birth, which voids every older entry and
-- flight: losing the hash costs misses, never a stale answer.
local function open_marks(marks, epoch, now, milliseconds)
  local found = redis.call('HMGET', marks, 'birth', 'clock', 'epoch')
  local birth, clock, current = found[1], found[2], found[3]
  if not (birth and clock and current) then
    birth, clock, current = digits(now), digits(now), digits(now)
    redis.call('DEL', marks)
    -- The floor voids flights whose fence is older than the hash: it cannot know what they missed.
    redis.call('HSET', marks, 'birth', birth, 'clock', clock, 'floor', birth, 'epoch', current)
    redis.call('PEXPIRE', marks, milliseconds)
    redis.call('SET', epoch, current, 'PX', milliseconds)
  elseif redis.call('EXISTS', epoch) == 0 then
    redis.call('SET', epoch, current, 'PX', milliseconds)
  end
  return birth, tonumber(clock), current
end

-- Not first in a script: after any write a server no longer minds its memory limit.
local function keep_marks(marks, epoch, milliseconds)
  raise_ttl(marks, milliseconds)
  raise_ttl(epoch, milliseconds)
end

-- A time later than every fence and mark of the bucket so far, even if the server's clock stepped back.
local function next_time(marks, now, clock, value_fence)
  local time = math.max(now, clock + 1, (value_fence or 0) + 1)
  redis.call('HSET', marks, 'clock', digits(time))
  return time
end

-- Fence and birth of a stored value, or nil for bytes that are not an entry of ours.
local function read_header(entry)
  local head = redis.pcall('GETRANGE', entry, 0, 63)
  if type(head) ~= 'string' or #head < 64 or string.find(head, '%D') then
    return nil
  end
  if tonumber(string.sub(head, 17, 32)) > LAST_TIME then
    return nil
  end
  return string.sub(head, 17, 32), string.sub(head, 33, 48)
end

-- Whether a flight or entry of this fence and birth has been invalidated since.
local function is_void(marks, fence, birth, subjects)
  local state = redis.call('HMGET', marks, 'birth', 'floor')
  if state[1] ~= birth or tonumber(state[2] or 0) >= tonumber(fence) then
    return true
  end
  for i = 1, #subjects do
    local mark = redis.call('HGET', marks, subjects[i])
    if mark and tonumber(mark) >= tonumber(fence) then
      return true
    end
  end
  return false
end

-- The access log holds "digest:length" -> time of last use; `size` the sum of the lengths it holds. An entry
-- that expired or was evicted by the server is still in both until somebody meets it: the sums are upper
-- bounds that heal.
local function length_of(entry)
  local length = redis.pcall('STRLEN', entry)
  return type(length) == 'number' and length or 0
end

local function book(log, size, digest, length, now)
  if redis.call('EXISTS', log) == 0 then
    redis.call('UNLINK', size)
  end
  if redis.call('ZADD', log, now, digest .. ':' .. length) == 1 then
    redis.call('INCRBY', size, length)
  end
end

local function unbook(log, size, member)
  if redis.call('ZREM', log, member) == 1 and redis.call('EXISTS', size) == 1 then
    redis.call('DECRBY', size, string.match(member, ':(%d+)$') or 0)
  end
end

local function unlink_entry(entry, log, size, digest)
  local length = length_of(entry)
  unbook(log, size, digest .. ':' .. length)
  return redis.call('UNLINK', entry)
end

local function is_gone(root, member)
  local digest, length = string.match(member, '^(%x+):(%d+)$')
  return not digest or length_of(root .. 'resp:' .. digest) ~= tonumber(length)
end

-- Takes the least recently used entries out, log and entry together, until at most `keep` entries and
-- `bytes` bytes are left or `steps` members were looked at. Returns how many entries were removed.
local function evict(log, size, root, keep, bytes, steps)
  local evicted = 0
  for _ = 1, steps do
    local held = tonumber(redis.call('GET', size) or 0)
    if redis.call('ZCARD', log) <= keep and held <= bytes then
      break
    end
    local member = redis.call('ZRANGE', log, 0, 0)[1]
    if not member then
      redis.call('UNLINK', size)
      break
    end
    if not is_gone(root, member) then
      redis.call('UNLINK', root .. 'resp:' .. string.match(member, '^%x+'))
      evicted = evicted + 1
    end
    unbook(log, size, member)
  end
  return evicted
end

local function wake(root, digest)
  -- Without the right to publish, or out of memory, followers still poll.
  redis.pcall('PUBLISH', root .. 'wake:' .. digest, '')
end

local function release(lease, token)
  local held = token ~= '' and redis.call('GET', lease)
  if held and string.sub(held, 1, #token) == token then
    return redis.call('DEL', lease)
  end
  return 0
end

local function rest(first)
  local values = {}
  for i = first, #ARGV do
    values[#values + 1] = ARGV[i]
  end
  return values
end
