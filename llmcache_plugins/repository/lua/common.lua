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

-- A tenth more than needed, so that not every script has to write.
local function lives_for(key, milliseconds)
  redis.call('PEXPIRE', key, string.format('%.0f', milliseconds * 1.1))
end

-- Lets a key, and one that follows it, live so long at least; returns nothing.
local function raise_ttl(key, follower, milliseconds)
  if redis.call('PTTL', key) < tonumber(milliseconds) then
    lives_for(key, milliseconds)
    lives_for(follower, milliseconds)
  end
end

-- The marks of a bucket: birth, clock, floor, a copy of the epoch, and one field per invalidated subject.
-- They can be evicted like any other key. A new hash has a new birth, which voids every older entry and
-- flight: losing the hash costs misses, never a stale answer.
-- `known_epoch` is the epoch's value, or false if there is none, where it was read already.
local function open_marks(marks, epoch, now, milliseconds, known_epoch)
  local found = redis.call('HMGET', marks, 'birth', 'clock', 'epoch')
  local birth, clock, current = found[1], found[2], found[3]
  if not (birth and clock and current) then
    birth, clock, current = digits(now), digits(now), digits(now)
    redis.call('DEL', marks)
    -- The floor voids flights whose fence is older than the hash: it cannot know what they missed.
    redis.call('HSET', marks, 'birth', birth, 'clock', clock, 'floor', birth, 'epoch', current)
    redis.call('PEXPIRE', marks, milliseconds)
    redis.call('SET', epoch, current, 'PX', milliseconds)
  elseif not known_epoch and (known_epoch == false or redis.call('EXISTS', epoch) == 0) then
    -- As long as the marks, which it follows.
    redis.call('SET', epoch, current, 'PX', math.max(redis.call('PTTL', marks), milliseconds))
  end
  return birth, tonumber(clock), current
end

-- Not first in a script: after any write a server no longer minds its memory limit.
local function keep_marks(marks, epoch, milliseconds)
  raise_ttl(marks, epoch, milliseconds)
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

-- Whether one of the subjects was invalidated at a time or after it.
local function has_mark_since(marks, time, subjects)
  for i = 1, #subjects do
    local mark = redis.call('HGET', marks, subjects[i])
    if mark and tonumber(mark) >= tonumber(time) then
      return true
    end
  end
  return false
end

-- Why a flight or entry of this fence and birth is not valid any more: "INVALIDATED" since, or "FORGOTTEN",
-- which means that the marks it could be judged by are lost. Nil if it is valid.
local function void_reason(marks, fence, birth, subjects)
  local state = redis.call('HMGET', marks, 'birth', 'floor', unpack(subjects))
  if state[1] ~= birth then
    return 'FORGOTTEN'
  end
  for i = 3, #subjects + 2 do
    if state[i] and tonumber(state[i]) >= tonumber(fence) then
      return 'INVALIDATED'
    end
  end
  if tonumber(state[2] or 0) >= tonumber(fence) then
    return 'FORGOTTEN'
  end
  return nil
end

-- Gives up the oldest marks of tags, models and the namespace, all but `most`: the floor takes their place,
-- and everything older than they is a miss. The epoch must move in the same script. Returns how many went.
local function forget_oldest(marks, most)
  local fields, named = redis.call('HGETALL', marks), {}
  for i = 1, #fields, 2 do
    if fields[i] == 'n' or string.find(fields[i], '^[tm]:') then
      named[#named + 1] = {fields[i], fields[i + 1]}
    end
  end
  table.sort(named, function(a, b) return a[2] < b[2] end)
  local forgotten, floor = 0, redis.call('HGET', marks, 'floor') or digits(0)
  for i = 1, #named - most do
    redis.call('HDEL', marks, named[i][1])
    forgotten = forgotten + 1
    if named[i][2] > floor then
      floor = named[i][2]
    end
  end
  redis.call('HSET', marks, 'floor', floor, 'named', math.min(#named, most))
  return forgotten
end

-- The access log holds "digest:length" -> time of last use; `size` the sum of the lengths it holds. An entry
-- that expired or was evicted by the server is still in both until somebody meets it: the sums are upper
-- bounds that heal.
local function length_of(entry)
  local length = redis.pcall('STRLEN', entry)
  return type(length) == 'number' and length or 0
end

-- The sum of a log's lengths, from a sample of it.
local function estimate(log, count)
  local sample, sum = redis.call('ZRANDMEMBER', log, 64), 0
  for i = 1, #sample do
    sum = sum + tonumber(string.match(sample[i], ':(%d+)$') or 0)
  end
  return sum / math.max(#sample, 1) * count
end

-- Books a member of `length` bytes, used at `now`; `milliseconds` is how long the books must live. Returns
-- how many members there are now, and the sum of their lengths.
local function book(log, size, digest, length, now, milliseconds)
  local added = redis.call('ZADD', log, now, digest .. ':' .. length)
  local count = redis.call('ZCARD', log)
  local sum = added == 1 and redis.call('INCRBY', size, length) or tonumber(redis.call('GET', size) or 0)
  if count == 1 or sum <= length then
    -- One of the books is new: the sum that there was spoke of another log, or is lost.
    sum = count == 1 and length or estimate(log, count)
    redis.call('SET', size, string.format('%.0f', sum))
    lives_for(size, milliseconds)
    if count == 1 then
      lives_for(log, milliseconds)
    end
  end
  raise_ttl(log, size, milliseconds)
  return count, sum
end

local function unbook(log, size, member)
  if redis.call('ZREM', log, member) == 1 and redis.call('EXISTS', size) == 1 then
    redis.call('DECRBY', size, string.match(member, ':(%d+)$') or 0)
  end
end

-- The vector of a question lies beside its answer and goes with it; `vectors` is what mirrors read: digest ->
-- time of its last attachment. Either may be lost: a question is then found by fewer others.
local function unlink_vector(root, digest)
  redis.call('UNLINK', root .. 'vec:' .. digest)
  redis.call('ZREM', root .. 'vectors', digest)
end

-- Takes a vector away whose answer has gone, or its mention if it has gone itself. Returns whether it did.
local function bury_vector(root, digest)
  if redis.call('EXISTS', root .. 'resp:' .. digest, root .. 'vec:' .. digest) == 2 then
    return false
  end
  unlink_vector(root, digest)
  return true
end

-- Times that rise with every mention, so that a mirror that has read up to one of them misses none.
local function next_mention(vectors, now)
  local newest = redis.call('ZRANGE', vectors, -1, -1, 'WITHSCORES')
  return math.max(now, (tonumber(newest[2]) or 0) + 1)
end

local function keep_vectors(vectors, milliseconds)
  if redis.call('PTTL', vectors) < milliseconds then
    lives_for(vectors, milliseconds)
  end
end

local function unlink_entry(root, log, size, digest)
  local entry = root .. 'resp:' .. digest
  unbook(log, size, digest .. ':' .. length_of(entry))
  unlink_vector(root, digest)
  return redis.call('UNLINK', entry)
end

local function is_gone(root, member)
  local digest, length = string.match(member, '^(%x+):(%d+)$')
  return not digest or length_of(root .. 'resp:' .. digest) ~= tonumber(length)
end

-- Takes a member out of the books whose entry is gone, and a vector that it has left.
local function unbook_gone(root, log, size, member)
  unbook(log, size, member)
  local digest = string.match(member, '^%x+')
  if digest then
    bury_vector(root, digest)
  end
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
    unbook_gone(root, log, size, member)
  end
  return evicted
end

local function wake(root, digest)
  -- Without the right to publish, or out of memory, followers still poll.
  redis.pcall('PUBLISH', root .. 'wake:' .. digest, '')
end

-- A lease holds its owner's token (32 hexadecimal digits), fence and birth, and then, a line each, what its
-- answer will be made from besides what all who ask for the key name.
local function lease_of(token, fence, birth, subjects)
  return token .. fence .. birth .. table.concat(subjects, '\n', 3)
end

local function lines_of(text)
  local lines = {}
  for line in string.gmatch(text, '[^\n]+') do
    lines[#lines + 1] = line
  end
  return lines
end

-- Token, fence, birth and the rest of a lease, or nil. What is not a lease of ours is nobody's and void.
local function read_lease(lease)
  local held = redis.pcall('GET', lease)
  if not held then
    return nil
  end
  if type(held) ~= 'string' or #held < 64 or string.find(string.sub(held, 33, 64), '%D') then
    return '', digits(0), '', ''
  end
  return string.sub(held, 1, 32), string.sub(held, 33, 48), string.sub(held, 49, 64), string.sub(held, 65)
end

local function release(lease, token)
  if token ~= '' and read_lease(lease) == token then
    return redis.call('DEL', lease)
  end
  return 0
end

-- What a flight that stored nothing left for those who were waiting at that moment:
--   kind (1 letter), time (16 digits), time of the failure before it (16 digits), report (opaque)
-- R  refused by a rate limit: an error for whoever asks, newcomers too
-- S  a request that fails for everybody: an error for who was waiting
-- E  a failure that may pass: they elect a new leader; who has seen two fail gets the error
-- D  a failure of that caller's own (its credentials): they elect; who has seen two goes alone
-- U  an answer that must not be shared: who was waiting goes alone, all of them at once
local function read_record(record)
  local left = redis.pcall('GET', record)
  if type(left) ~= 'string' or #left < 33 or not string.find(left, '^[RSEDU]') then
    return nil
  end
  if string.find(string.sub(left, 2, 33), '%D') then
    return nil
  end
  return string.sub(left, 1, 1), string.sub(left, 2, 17), string.sub(left, 18, 33), string.sub(left, 34)
end

local function leave_record(record, kind, report, now, milliseconds)
  local previous = digits(0)
  local kind_before, at = read_record(record)
  if kind_before and string.find(kind, '[ED]') and string.find(kind_before, '[ED]') then
    previous = at
  end
  -- Out of memory, followers elect without having been told why.
  redis.pcall('SET', record, kind .. digits(now) .. previous .. report, 'PX', milliseconds)
end

local function has_record_since(record, time, marks, subjects)
  local kind, at = read_record(record)
  return kind and tonumber(at) >= time and not has_mark_since(marks, at, subjects)
end

-- "ERROR", "ALONE" or nil for one who has been waiting since `since` ('' = a newcomer); the record's report
-- and age in milliseconds.
local function judge_record(record, since, now, marks, subjects)
  local kind, at, previous, report = read_record(record)
  if not kind or has_mark_since(marks, at, subjects) then
    return nil
  end
  local verdict = ({R = 'ERROR', S = 'ERROR', E = 'ERROR', D = 'ALONE', U = 'ALONE'})[kind]
  local until_when = string.find(kind, '[ED]') and previous or at
  if kind ~= 'R' and (since == '' or since > until_when) then
    return nil
  end
  -- The server's clock may have stepped back.
  return verdict, report, math.max(math.floor((now - tonumber(at)) / 1000), 0)
end

-- The chunks of a flight that come after the first `count`, in batches: {number of the last, data, is_end}.
-- The id of a batch is the number of the chunk it ends with, so a gap shows and a repeated one is refused.
local function batches_after(chunks, count)
  local batches = {}
  for _, row in ipairs(redis.call('XRANGE', chunks, '(' .. count .. '-0', '+')) do
    batches[#batches + 1] = {tonumber(string.match(row[1], '^%d+')), row[2][2], row[2][4]}
  end
  return batches
end

local function rest(first)
  local values = {}
  for i = first, #ARGV do
    values[#values + 1] = ARGV[i]
  end
  return values
end
