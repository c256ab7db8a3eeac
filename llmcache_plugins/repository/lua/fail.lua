-- Give a lease up, by its owner only.
-- KEYS: marks lease
-- ARGV: token fence birth root digest subjects*
-- Returns 1 if the flight was invalidated meanwhile, so that its answer must not be given to others, else 0
if release(lease, token) == 1 then
  wake(root, digest)
end
if fence ~= '' and is_void(marks, fence, birth, subjects) then
  return 1
end
return 0
