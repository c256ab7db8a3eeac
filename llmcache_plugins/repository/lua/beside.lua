-- Say how long an entry lives and what lies beside it. That is no use of any of it, and writes nothing.
-- KEYS: marks entry lease vector
-- ARGV: subjects*
-- Returns {milliseconds the entry lives, milliseconds for which somebody fetches it anew, vectors}
-- Milliseconds are as PTTL says them, below 0 for none. What an invalidation has voided is no lease.
local owner, fence, birth, about = read_lease(lease)
local is_held = owner and not (void_reason(marks, fence, birth, subjects)
  or about ~= '' and void_reason(marks, fence, birth, lines_of(about)))
-- Four fields are not of an embedder; see attach.lua.
local fields = redis.pcall('HLEN', vector)
local vectors = type(fields) == 'number' and math.max(fields - 4, 0) or 0
return {redis.call('PTTL', entry), is_held and redis.call('PTTL', lease) or -2, vectors}
