-- Take a vector away whose answer has gone.
-- KEYS: entry
-- ARGV: root digest
-- Returns 1, or 0 if the answer is there
if read_header(entry) then
  return 0
end
unlink_vector(root, digest)
return 1
