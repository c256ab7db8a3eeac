-- Unlink those of the named entries that an invalidation of the namespace has voided; newer ones stay.
-- KEYS: marks log size
-- ARGV: root subject digests*
-- Returns how many entries were unlinked
local unlinked = 0
for i = 1, #digests do
  local entry = root .. 'resp:' .. digests[i]
  local fence, birth = read_header(entry)
  if not fence or void_reason(marks, fence, birth, {subject}) then
    unlinked = unlinked + unlink_entry(entry, log, size, digests[i])
  end
end
return unlinked
