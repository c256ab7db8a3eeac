-- Look again, and lead if nobody does. Finding one's own token counts as leading: the reply may have been
-- lost, and a retry would otherwise lock itself out.
-- KEYS: marks epoch entry lease record chunks
-- ARGV: token mode seen since live lease_ms marks_ms pause_ms subjects*
-- Modes: "lead"; "follow" never leads; "fence" gives a fence without the lease, whoever leads; "refresh" leads
-- unless somebody does, or has left a record in the last `pause_ms`. `seen` is the fence of an entry that was
-- read and cannot be used, or is to be replaced ("*" = whatever is there): it counts as absent. `since` is
-- the server's time of this caller's first WAIT, '' before. With `live` a WAIT carries the chunks there are.
-- Returns {"HIT", value, epoch} | {"LEAD", fence, birth} | {"WAIT", milliseconds, time, fence, batches}
--       | {"ERROR", report, age_ms} | {"ALONE", fence, birth} | {"NONE"}
local now = server_time()
local birth, clock, current = open_marks(marks, epoch, now, marks_ms)
local fence = read_header(entry)
if fence and seen ~= '*' and seen ~= fence then
  return {'HIT', redis.call('GET', entry), current}
end

local verdict
if mode ~= 'fence' then
  local owner, its_fence, its_birth, about = read_lease(lease)
  if owner and (void_reason(marks, its_fence, its_birth, subjects)
      or about ~= '' and void_reason(marks, its_fence, its_birth, lines_of(about))) then
    -- Its answer will be stored by nobody and given to nobody: it is no use to wait for it.
    redis.call('DEL', lease)
    owner = nil
  end
  if owner == token then
    return {'LEAD', its_fence, its_birth}
  end
  if mode == 'refresh' and (owner or has_record_since(record, now - pause_ms * 1000, marks, subjects)) then
    return {'NONE'}
  end
  local report, age
  verdict, report, age = judge_record(record, since, now, marks, subjects)
  if verdict == 'ERROR' then
    return {'ERROR', report, age}
  elseif not verdict and owner then
    local batches = live == '1' and batches_after(chunks .. ':' .. its_fence, 0) or {}
    return {'WAIT', redis.call('PTTL', lease), digits(now), its_fence, batches}
  elseif mode == 'follow' then
    return {'NONE'}
  end
end
local mine = digits(next_time(marks, now, clock, tonumber(fence)))
if (mode == 'lead' or mode == 'refresh') and not verdict then
  redis.call('SET', lease, lease_of(token, mine, birth, subjects), 'NX', 'PX', lease_ms)
end
keep_marks(marks, epoch, marks_ms)
return {verdict or 'LEAD', mine, birth}
