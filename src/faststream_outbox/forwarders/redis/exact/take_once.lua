-- Takes the messages of one shard, if its marker is the expected one: one step, which nobody sees half of.
--
-- KEYS: the marker, then the addresses. ARGV: the token that the marker is to have, empty where there is none; the
-- element to be added, up to its marks; how many elements to keep; marks that it names beside those of the messages; the
-- marks of the messages, both joined by NUL; the command's name; how many arguments it has between address
-- and message; these arguments. Then runs of messages: the number of the address, the arguments of each message, how
-- many messages, the messages.
--
-- Returns 0 and what the marker has, where it is another one. Else 1, how many messages were taken, and why the next one
-- was not. Nothing behind such a message is taken.
local marker = KEYS[1]
local last = redis.call('LINDEX', marker, -1)
if (last and string.sub(last, 1, 19) or '') ~= ARGV[1] then
  local there = redis.call('LRANGE', marker, 0, -1)
  table.insert(there, 1, 0)
  return there
end
local fixed = tonumber(ARGV[7])
local at, taken, problem = 8 + fixed, 0, nil
while at <= #ARGV and not problem do
  local own, count = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  local command = {ARGV[6], KEYS[tonumber(ARGV[at])]}
  for i = 1, fixed do
    command[2 + i] = ARGV[7 + i]
  end
  at = at + 3
  for _ = 1, count do
    for i = 1, own do
      command[2 + fixed + i] = ARGV[at]
      at = at + 1
    end
    local answer = redis.pcall(unpack(command))
    if type(answer) == 'table' and answer.err then
      problem = answer.err
      break
    end
    taken = taken + 1
  end
end
if taken > 0 then
  local marks = ARGV[5]
  if problem then
    -- Of a message that was not taken, the marker says nothing.
    local cut = 0
    for _ = 1, taken do
      cut = string.find(marks, '\0', cut + 1, true)
    end
    marks = string.sub(marks, 1, cut - 1)
  end
  if ARGV[4] ~= '' then
    marks = ARGV[4] .. '\0' .. marks
  end
  redis.call('RPUSH', marker, ARGV[2] .. '\0' .. marks)
  redis.call('LTRIM', marker, -tonumber(ARGV[3]), -1)
end
return {1, taken, problem}
