-- Give a lease up, by its owner only.
-- KEYS: lease
-- ARGV: token root digest
-- Returns 1 | 0
local released = release(lease, token)
if released == 1 then
  wake(root, digest)
end
return released
