-- Void every entry and flight of the named subjects in one bucket, in constant time whatever their number.
-- KEYS: marks epoch log size
-- ARGV: marks_ms oldest_us most_marks root subjects*
-- A subject "k:<digest>" is one request: its entry is unlinked here, so its mark concerns flights only and
-- is dropped by age. Other subjects move the epoch; `most_marks` of theirs are kept.
-- Returns {mark, how many entries were unlinked, how many marks were given up}
-- A first write that frees memory: after it a full server no longer refuses those that follow, and what must
-- not be served any more can be told so even there.
redis.call('UNLINK', epoch)
local now = server_time()
local _, clock = open_marks(marks, epoch, now, marks_ms)
local newest = 0
for i = 1, #subjects do
  local digest = string.match(subjects[i], '^k:(%x+)$')
  if digest then
    newest = math.max(newest, tonumber(read_header(root .. 'resp:' .. digest) or 0))
  end
end
local mark = digits(next_time(marks, now, clock, newest))
keep_marks(marks, epoch, marks_ms)
local unlinked, moves_epoch, named = 0, false, 0
for i = 1, #subjects do
  local added = redis.call('HSET', marks, subjects[i], mark)
  local digest = string.match(subjects[i], '^k:(%x+)$')
  if digest then
    unlinked = unlinked + unlink_entry(root, log, size, digest)
    redis.call('UNLINK', root .. 'lease:' .. digest, root .. 'error:' .. digest)
    wake(root, digest)
  else
    moves_epoch = true
    named = named + added
  end
end
local forgotten = 0
if named > 0 then
  named = named + (redis.call('HGET', marks, 'named') or 0)
  redis.call('HSET', marks, 'named', named)
  if named > 2 * most_marks then
    forgotten = forget_oldest(marks, tonumber(most_marks))
  end
end
if moves_epoch then
  redis.call('HSET', marks, 'epoch', mark)
  redis.call('SET', epoch, mark, 'KEEPTTL')
end

-- Old marks of single keys go, a thousand or more at a time.
if redis.call('HLEN', marks) > 2000 then
  local pruned = tonumber(redis.call('HGET', marks, 'pruned') or 0)
  if now - pruned > tonumber(oldest_us) / 2 then
    local fields = redis.call('HGETALL', marks)
    for i = 1, #fields, 2 do
      if string.sub(fields[i], 1, 2) == 'k:' and now - tonumber(fields[i + 1]) > tonumber(oldest_us) then
        redis.call('HDEL', marks, fields[i])
      end
    end
    redis.call('HSET', marks, 'pruned', digits(now))
  end
end
return {mark, unlinked, forgotten}
