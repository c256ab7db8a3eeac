-- Add what a process has counted to the day's ledger, once: a batch that is sent again, because its reply was
-- lost, is known by its sequence number. Names that find no room are added under the name after them.
-- KEYS: day flushed
-- ARGV: keep_ms flushed_ms sequence most amounts*
-- amounts: name, amount, name where there is no room; and so on
-- Returns 1, or 0 for a batch that is there.
if redis.call('GET', flushed) == sequence then
  return 0
end
local room = tonumber(most) - redis.call('HLEN', day)
for i = 1, #amounts, 3 do
  local name = amounts[i]
  if redis.call('HEXISTS', day, name) == 0 then
    if room > 0 then
      room = room - 1
    else
      name = amounts[i + 2]
    end
  end
  -- The amounts stay text: a Lua number is exact up to 2^53 only. A sum beyond 2^63 stays what it was.
  local added = redis.pcall('HINCRBY', day, name, amounts[i + 1])
  if type(added) == 'table' and added.err and not string.find(added.err, 'overflow') then
    return added
  end
end
redis.call('PEXPIRE', day, keep_ms)
redis.call('SET', flushed, sequence, 'PX', flushed_ms)
return 1
