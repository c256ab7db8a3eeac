-- Look again, and lead if nobody does. Finding one's own token counts as leading: the reply may have been
-- lost, and a retry would otherwise lock itself out.
-- KEYS: marks epoch entry lease
-- ARGV: token mode seen lease_ms marks_ms
-- Modes: "lead"; "fence" gives a fence without the lease. `seen` is the fence of an entry already judged
-- invalid ("*" = whatever is there): it counts as absent.
-- Returns {"HIT", value, epoch} | {"LEAD", fence, birth} | {"WAIT", milliseconds}
local now = server_time()
local birth, clock, current = open_marks(marks, epoch, now, marks_ms)
local fence = read_header(entry)
if fence and seen ~= '*' and seen ~= fence then
  return {'HIT', redis.call('GET', entry), current}
end
if mode == 'lead' then
  local held = redis.call('GET', lease)
  if held then
    if string.sub(held, 1, #token) == token then
      return {'LEAD', string.sub(held, #token + 1), birth}
    end
    return {'WAIT', redis.call('PTTL', lease)}
  end
end
local mine = digits(next_time(marks, now, clock, tonumber(fence)))
if mode == 'lead' then
  redis.call('SET', lease, token .. mine, 'NX', 'PX', lease_ms)
end
keep_marks(marks, epoch, marks_ms)
return {'LEAD', mine, birth}
