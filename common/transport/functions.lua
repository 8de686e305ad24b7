#!lua name=impala5

-- The atomic steps of the transport, run inside the server. Each leaves the books balanced:
--   produced = consumed + dropped_oldest + dead_lettered + stale_rejected + abandoned
--              + LLEN trajectories + LLEN inflight
-- What comes onto the list around a push is counted too: as produced and, beside it, foreign.
-- No block passes through a function: as a text of Lua's it would be copied four times, and cost more
-- than all else. So a push and a claim are functions around a plain command that carries the block.
-- The number in the names is the protocol's: raised by one whenever a function's meaning changes,
-- so that two versions of the programs can share a server.
--
-- Errors start with a word that common/server/translation.py knows: HELD, FENCED, NORUN, CURSOR, and
-- BROKEN or a word of the server's own where a key or a counter is not what the programs write.

local COUNTERS = {
  'produced', 'consumed', 'dropped_oldest', 'dead_lettered', 'stale_rejected', 'abandoned',
  'dup_push', 'foreign',
}
local ENDS = {
  'consumed', 'dropped_oldest', 'dead_lettered', 'stale_rejected', 'abandoned',
}

-- The largest number that Lua, and so a counter here, holds exactly.
local MOST = 2 ^ 53

-- So many learners can share one run: its group.
local MOST_RANKS = 1024

-- A producer that has been silent for this long is forgotten.
local SILENT_S = 86400

local function norun()
  return redis.error_reply('NORUN no learner has opened this run')
end

-- A learner's token is its epoch's number and its name: after a wipe numbers may repeat.
local function fenced(epoch_key, mine)
  local current = redis.call('HGET', epoch_key, 'token')
  if not current then return norun() end
  if current ~= mine then
    return redis.error_reply('FENCED ' .. mine .. ' is over, now ' .. current)
  end
  return nil
end

local function has_books(stats)
  return redis.call('HEXISTS', stats, 'generation') == 1
end

-- The server's clock, in seconds with six decimals.
local function now()
  local time = redis.call('TIME')
  return time[1] .. '.' .. string.format('%06d', time[2])
end

local function count(stats, name, amount)
  if amount > 0 then redis.call('HINCRBY', stats, name, amount) end
end

local function whole(text)
  local number = tonumber(text)
  return number and number >= 0 and number <= MOST and number == math.floor(number) and number or nil
end

-- Deletes a key that is of another type than that which the command reads.
local function mend_key(mended, key, ...)
  local reply = redis.pcall(...)
  if type(reply) == 'table' and string.find(reply.err or '', 'WRONGTYPE') then
    redis.call('DEL', key)
    table.insert(mended, key)
  end
end

-- Begins the counters anew that hold no number or an absurd one, and those of the books that are
-- missing.
local function mend_counters(mended, stats, names)
  local has_begun = has_books(stats)
  for _, name in ipairs(names) do
    if redis.call('HEXISTS', stats, name) == 1 then
      local value = redis.pcall('HINCRBY', stats, name, 0)
      if type(value) ~= 'number' or not whole(8 * value) then -- the sum of all must be whole, too
        redis.call('HSET', stats, name, 0)
        table.insert(mended, stats .. ' ' .. name)
      end
    end
  end
  for _, name in ipairs(COUNTERS) do
    local is_new = redis.call('HSETNX', stats, name, 0) == 1
    if is_new and has_begun and name ~= 'foreign' then table.insert(mended, stats .. ' ' .. name) end
  end
end

local function ended(stats)
  local sum = 0
  for _, count_ended in ipairs(redis.call('HMGET', stats, unpack(ENDS))) do
    sum = sum + whole(count_ended)
  end
  return sum
end

-- The learners of a group share the list and the token. Each is a rank of the group, 0 and up, and has
-- two cursors of its own in the epoch: how many blocks it has taken since it joined, and how many of
-- them it has committed. `in_flight` beside them is what all have in flight, a mark for each.
-- `claimed` is rank 0's; the others' keys have their rank at the end.
local function claimed_of(claimed, rank)
  return rank == 0 and claimed or claimed .. ':' .. rank
end

-- Notes how far a rank has come, and how many blocks are in flight in all.
local function set_cursors(epoch, rank, taken, committed, in_flight)
  redis.call('HSET', epoch, 'taken:' .. rank, taken, 'committed:' .. rank, committed,
    'in_flight', in_flight)
end

-- What a rank has taken and committed, and what all have in flight; nil and an error when one of these
-- is gone or is none, or does not fit the marks: then only `open` can tell what is in flight.
local function cursors_of(epoch, inflight, rank)
  local found = redis.call('HMGET', epoch, 'ranks', 'in_flight', 'taken:' .. rank, 'committed:' .. rank)
  for i = 1, 4 do found[i] = whole(found[i] or '') or -1 end
  local ranks, in_flight, taken, committed = unpack(found)
  if math.min(in_flight, committed) < 0 or taken < committed
    or tonumber(rank) >= ranks or ranks > MOST_RANKS then
    return nil, redis.error_reply('BROKEN a cursor of rank ' .. rank .. ' is gone or is none')
  end
  local marks = redis.call('LLEN', inflight)
  if marks ~= in_flight or marks < taken - committed then
    return nil, redis.error_reply('CURSOR ' .. in_flight .. ' in flight, ' .. taken - committed
      .. ' of them of rank ' .. rank .. ', but ' .. marks .. ' are marked')
  end
  return taken, committed, in_flight
end

-- Whether the cursors of all ranks together explain what is in flight.
local function do_cursors_fit(epoch, inflight, ranks)
  local all, in_flight = 0, nil
  for rank = 0, ranks - 1 do
    local taken, committed, marked = cursors_of(epoch, inflight, rank)
    if not taken then return false end
    all, in_flight = all + taken - committed, marked
  end
  return all == in_flight
end

-- open: takes the run over for a learner, or for all of a group. In-flight blocks of those before are
-- abandoned. What is of another type than it must be is deleted, and counters that are no numbers
-- begin anew; then `produced` is what the other counters and the list explain.
-- KEYS lock epoch inflight claimed stats trajectories pushing dead seq weights spec joins
-- ARGV holder lease_ms take_over least_epoch generation ranks [further counter]...
-- Returns {epoch, abandoned, by how much produced was lowered, [what was mended]...}.
-- HELD when another learner's lease is alive.
local function open(keys, args)
  local lock, epoch, inflight, claimed, stats, trajectories = unpack(keys)
  local holder, lease_ms, take_over, least_epoch, generation = unpack(args)
  local ranks = tonumber(args[6])
  local mended = {}
  mend_key(mended, lock, 'GET', lock)
  local held = redis.call('GET', lock)
  if held and held ~= holder and take_over ~= '1' then
    return redis.error_reply('HELD ' .. redis.call('PTTL', lock) .. ' ' .. held)
  end
  for _, i in ipairs { 3, 4, 6, 7, 8 } do mend_key(mended, keys[i], 'LLEN', keys[i]) end
  for _, i in ipairs { 2, 5, 9, 10, 11, 12 } do mend_key(mended, keys[i], 'HEXISTS', keys[i], '') end
  mend_counters(mended, stats, COUNTERS)
  mend_counters(mended, stats, { unpack(args, 7) })
  local last = whole(redis.call('HGET', epoch, 'number') or '0')
  if not last or last > MOST / 2 then -- so high that it could not be counted on
    last = 0
    table.insert(mended, epoch .. ' number')
  end
  local number = math.max(last, tonumber(least_epoch)) + 1
  local before = whole(redis.call('HGET', epoch, 'ranks') or '1')
  if not before or before > MOST_RANKS then
    before = MOST_RANKS
    table.insert(mended, epoch .. ' ranks')
  end
  redis.call('HSET', epoch, 'number', number, 'holder', holder, 'ranks', ranks,
    'token', string.format('%.0f:%s', number, holder))
  for rank = 0, math.max(before, ranks) - 1 do
    redis.call('DEL', claimed_of(claimed, rank))
    redis.call('HDEL', epoch, 'taken:' .. rank, 'committed:' .. rank)
    if rank < ranks then set_cursors(epoch, rank, 0, 0, 0) end
  end
  redis.call('SET', lock, holder, 'PX', lease_ms)
  redis.call('HSETNX', stats, 'generation', generation)
  local abandoned = redis.call('LLEN', inflight)
  count(stats, 'abandoned', abandoned)
  redis.call('DEL', inflight)
  local unexplained = 0
  if #mended > 0 then
    local produced = ended(stats) + redis.call('LLEN', trajectories)
    unexplained = redis.call('HGET', stats, 'produced') - produced
    redis.call('HSET', stats, 'produced', string.format('%.0f', produced))
  end
  return { number, abandoned, unexplained, unpack(mended) }
end

-- join: lets a further rank of the group that holds the run begin: its cursors start at 0, and what it
-- had in flight is abandoned. `broken` is a token under which that rank has found a key broken. Such a
-- token is taken away from the whole group, as where the cursors do not fit: then rank 0, whose next
-- command is refused, opens the run again and mends it.
-- KEYS epoch inflight claimed stats   ARGV holder rank ranks broken
-- Returns the group's token.
local function join(keys, args)
  local epoch, inflight, claimed, stats = unpack(keys)
  local holder, rank, ranks, broken = unpack(args)
  local token, current, size = unpack(redis.call('HMGET', epoch, 'token', 'holder', 'ranks'))
  if not token or current ~= holder then return norun() end
  local fine, fit = pcall(do_cursors_fit, epoch, inflight, tonumber(ranks))
  if token == broken or size ~= ranks or not (fine and fit) or not has_books(stats) then
    redis.call('HDEL', epoch, 'token')
    return norun()
  end
  local taken, committed, in_flight = cursors_of(epoch, inflight, rank)
  count(stats, 'abandoned', taken - committed)
  redis.call('LTRIM', inflight, taken - committed, -1)
  set_cursors(epoch, rank, 0, 0, in_flight - taken + committed)
  redis.call('DEL', claimed)
  return token
end

-- renew: keeps the lease, and leaves the learner's figures beside its epoch. Actors, who may not
-- read the lease, see by `renewed_at` in the spec that a learner is there.
-- KEYS lock spec epoch   ARGV token holder lease_ms [name figure]...
local function renew(keys, args)
  local lock, spec, epoch = unpack(keys)
  local over = fenced(epoch, args[1])
  if over then return over end
  redis.call('SET', lock, args[2], 'PX', args[3])
  mend_key({}, spec, 'HEXISTS', spec, '')
  redis.call('HSET', spec, 'renewed_at', now())
  for i = 4, #args, 2 do redis.call('HSET', epoch, 'learner:' .. args[i], args[i + 1]) end
  return 1
end

-- release: gives the lease back at a clean end.   KEYS lock epoch   ARGV token
local function release(keys, args)
  local over = fenced(keys[2], args[1])
  if over then return over end
  redis.call('DEL', keys[1])
  return 1
end

-- announce: writes the run's spec.   KEYS spec epoch   ARGV token json digest fingerprint state
local function announce(keys, args)
  local over = fenced(keys[2], args[1])
  if over then return over end
  mend_key({}, keys[1], 'HEXISTS', keys[1], '')
  redis.call('HSET', keys[1], 'json', args[2], 'digest', args[3], 'fingerprint', args[4],
    'state', args[5])
  return 1
end

-- A push is MULTI, push_begin, RPUSHX pushing BLOCK..., push_end, EXEC: others see nothing between,
-- and of several blocks that are pushed together all come in or none.
-- Only push_begin gives the list the name that RPUSHX, which makes no list, pushes to. So a block
-- that must not be stored is not, even where these functions are missing.

-- Forgets the producers that have been silent for long. What release 0.1 left has no time yet.
local function forget_silent(seq)
  local seconds = tonumber(redis.call('TIME')[1])
  local all = redis.call('HGETALL', seq)
  for i = 1, #all, 2 do
    local last = tonumber(string.match(all[i + 1], ' (%d+)$') or '')
    if not last then
      redis.call('HSET', seq, all[i], all[i + 1] .. ' ' .. seconds)
    elseif seconds - last > SILENT_S then
      redis.call('HDEL', seq, all[i])
    end
  end
end

-- push_begin: lets blocks in that a producer numbered one after the other. If one of them is sent
-- again (its number is not above the producer's last), all are counted as such, and kept out; so are
-- those for which the list has no room, if their producer waits for it.
-- KEYS trajectories pushing stats seq
-- ARGV producer sequence (of the last of these blocks) queue_blocks queue_policy number (of blocks)
-- Returns 1 when they may come in, 0 when one had been stored before, -1 when there is no room.
local function push_begin(keys, args)
  local trajectories, pushing, stats, seq = unpack(keys)
  local producer, sequence, queue_blocks, queue_policy, number = unpack(args)
  if not has_books(stats) then return norun() end
  local known = redis.call('HGET', seq, producer)
  if not known then forget_silent(seq) end
  local last = whole(string.match(known or '', '^(%d+) %d+$') or string.match(known or '', '^%d+$'))
    or 0
  if tonumber(sequence) - number < last then
    redis.call('HINCRBY', stats, 'dup_push', number)
    return 0
  end
  local blocks = redis.call('LLEN', trajectories)
  if queue_policy == 'block' and blocks + number > tonumber(queue_blocks) then return -1 end
  if blocks > 0 then redis.call('RENAME', trajectories, pushing) end
  redis.call('LPUSH', pushing, '') -- or there would be no list to push to when none waits
  return 1
end

-- push_end: gives the list its name back and counts the blocks. Bounded: the oldest go.
-- KEYS and ARGV as push_begin
-- Returns 1 when stored, 0 when push_begin has kept them out.
local function push_end(keys, args)
  local trajectories, pushing, stats, seq = unpack(keys)
  local producer, sequence, queue_blocks, _, number = unpack(args)
  local blocks = redis.call('LLEN', pushing) - 1
  if blocks < 1 then
    redis.call('LTRIM', pushing, 1, 0) -- empty it: RPUSHX may have been refused
    return 0
  end
  redis.call('RENAME', pushing, trajectories)
  local excess = math.max(blocks - tonumber(queue_blocks), 0)
  redis.call('LTRIM', trajectories, 1 + excess, -1)
  count(stats, 'dropped_oldest', excess)
  redis.call('HSET', seq, producer, sequence .. ' ' .. redis.call('TIME')[1])
  redis.call('HINCRBY', stats, 'produced', number)
  return 1
end

-- Counts what came onto the list around a push.
local function count_foreign(trajectories, inflight, stats)
  local explained = whole(redis.call('HGET', stats, 'produced')) - ended(stats)
  local there = redis.call('LLEN', trajectories) + redis.call('LLEN', inflight)
  count(stats, 'produced', there - explained)
  count(stats, 'foreign', there - explained)
end

-- How many of the first blocks have so many bytes together; one at least, if there is one. Each is
-- copied to Lua for it, so it is asked only where blocks are likely to be no blocks.
local function within(trajectories, most, most_bytes)
  local bytes = 0
  for i = 1, most do
    bytes = bytes + #redis.call('LRANGE', trajectories, i - 1, i - 1)[1]
    if bytes > most_bytes then return math.max(i - 1, 1) end
  end
  return most
end

local function leave_marks(inflight, first, last)
  for start = first, last, 1000 do
    local marks = {}
    for mark = start, math.min(start + 999, last) do marks[#marks + 1] = mark end
    redis.call('RPUSH', inflight, unpack(marks))
  end
end

-- A claim is claim, LRANGE claimed, confirm: no transaction, which a full server would refuse.

-- claim: takes the next blocks off the list, into `claimed`, and leaves a mark for each in flight.
-- `received` is how many this learner has received since it opened or joined the run: later ones, of
-- a claim whose reply was lost, are given again.
-- With `most_bytes` above 0 no more are taken than have so many bytes together, but one at least.
-- KEYS trajectories inflight claimed epoch stats pushing seq
-- ARGV token rank received most most_bytes
-- Returns how many there are for the caller, from the head of `claimed`.
local function claim(keys, args)
  local trajectories, inflight, claimed, epoch, stats = unpack(keys)
  local over = fenced(epoch, args[1])
  if over then return over end
  if not has_books(stats) then return norun() end
  -- Actors need these two and cannot mend them: whether they are sound is noticed here.
  redis.call('LLEN', keys[6])
  redis.call('HEXISTS', keys[7], '')
  local received, most, most_bytes = tonumber(args[3]), tonumber(args[4]), tonumber(args[5])
  local taken, committed, in_flight = cursors_of(epoch, inflight, args[2])
  if not taken then return committed end
  local lost = taken - received
  if received < committed or lost < 0 or lost > redis.call('LLEN', claimed) then
    return redis.error_reply('CURSOR received ' .. received .. ' is not in ' .. committed
      .. ' .. ' .. taken .. ', or its blocks are gone')
  end
  if lost == 0 then redis.call('DEL', claimed) end
  if most == 0 then return 0 end
  if lost > 0 then
    redis.call('LTRIM', claimed, -lost, -1)
    return math.min(lost, most)
  end
  count_foreign(trajectories, inflight, stats)
  local blocks = redis.call('LLEN', trajectories)
  if most_bytes > 0 then most = within(trajectories, math.min(blocks, most), most_bytes) end
  if blocks > most then
    -- SORT, of all commands: it copies to another list and does not tell the blocks to Lua.
    redis.call('SORT', trajectories, 'BY', 'nosort', 'LIMIT', 0, most, 'STORE', claimed)
    redis.call('LTRIM', trajectories, most, -1)
    blocks = most
  elseif blocks > 0 then
    redis.call('RENAME', trajectories, claimed)
  end
  leave_marks(inflight, taken + 1, taken + blocks)
  if blocks > 0 then set_cursors(epoch, args[2], taken + blocks, committed, in_flight + blocks) end
  return blocks
end

-- confirm: whether what was read since `claim` was this learner's own: none has taken over.
-- KEYS trajectories epoch   ARGV token
-- Returns how many blocks wait.
local function confirm(keys, args)
  return fenced(keys[2], args[1]) or redis.call('LLEN', keys[1])
end

-- commit: settles a rank's oldest in-flight blocks, each in one counter. `before` is how many were
-- committed before: a commit sent again is ignored. Dead ones come as counts by reason, `kinds` in
-- all, and the last of them leave a record each, oldest first; the last 100 are kept.
-- KEYS inflight stats epoch dead   ARGV token rank before consumed stale kinds [reason count]...
-- [record]...
-- Returns how many are committed now.
local function commit(keys, args)
  local inflight, stats, epoch, dead = unpack(keys)
  local over = fenced(epoch, args[1])
  if over then return over end
  if not has_books(stats) then return norun() end
  local before, consumed, stale = tonumber(args[3]), tonumber(args[4]), tonumber(args[5])
  local records, buried = 7 + 2 * tonumber(args[6]), 0
  for i = 8, records, 2 do buried = buried + tonumber(args[i]) end
  local settled = consumed + stale + buried
  local taken, committed, in_flight = cursors_of(epoch, inflight, args[2])
  if not taken then return committed end
  if committed == before + settled then return committed end
  if committed ~= before or settled > taken - committed then
    return redis.error_reply('CURSOR ' .. before .. ' + ' .. settled .. ' does not follow '
      .. committed)
  end
  redis.call('LTRIM', inflight, settled, -1)
  set_cursors(epoch, args[2], taken, committed + settled, in_flight - settled)
  count(stats, 'consumed', consumed)
  count(stats, 'stale_rejected', stale)
  count(stats, 'dead_lettered', buried)
  for i = 7, records - 1, 2 do count(stats, 'dead_lettered:' .. args[i], tonumber(args[i + 1])) end
  for i = records, #args do redis.call('LPUSH', dead, args[i]) end
  if #args >= records then redis.call('LTRIM', dead, 0, 99) end
  return committed + settled
end

-- publish: new weights, all fields at once. The version only grows, up to `newest`, the newest that
-- this learner has sent. What is there and newer than that was written by somebody else.
-- KEYS weights epoch   ARGV token version payload digest newest
-- Returns 1 when stored, 0 when newer ones were there, and a version that was somebody else's and is
-- written over. The same ones again repair what is there.
local function publish(keys, args)
  local weights, epoch = unpack(keys)
  local over = fenced(epoch, args[1])
  if over then return over end
  mend_key({}, weights, 'HEXISTS', weights, '')
  local text = redis.call('HGET', weights, 'version')
  local current = whole(text or '0')
  local is_ours = current and current <= tonumber(args[5])
  if text and is_ours and tonumber(args[2]) < current then return 0 end
  redis.call('HSET', weights, 'version', args[2], 'payload', args[3], 'digest', args[4],
    'published_at', now())
  return is_ours and 1 or string.sub(text, 1, 40)
end

-- What pcall returns for an error: of the server's own it is a table or, by version, its words.
local function words_of(failure)
  return type(failure) == 'table' and failure.err or failure
end

-- What reads for impala-status gives no text that is longer than `most_bytes`: of such a one it says
-- how long it is, and copies it nowhere. A key of another type is nil.

local function read_field(key, name, most_bytes)
  local length = redis.call('HSTRLEN', key, name)
  if length == 0 then return false end
  if length > tonumber(most_bytes) then return '(' .. length .. ' bytes)' end
  return redis.call('HGET', key, name)
end

local function read_hash(key, most_bytes, names)
  local found = {}
  for i, name in ipairs(names) do found[i] = read_field(key, name, most_bytes) end
  return found
end

local function read_length(list)
  return redis.call('LLEN', list)
end

local function read_lease(lock, most_bytes)
  return { redis.call('GETRANGE', lock, 0, most_bytes), redis.call('PTTL', lock) }
end

-- All fields as pairs; none of more than `most`, and none with a long name.
local function read_pairs(key, most, most_bytes)
  local found = {}
  if redis.call('HLEN', key) > tonumber(most) then return found end
  for _, name in ipairs(redis.call('HKEYS', key)) do
    if #name <= tonumber(most_bytes) then
      table.insert(found, name)
      table.insert(found, read_field(key, name, most_bytes))
    end
  end
  return found
end

local function unless_broken(reader, ...)
  local fine, found = pcall(reader, ...)
  if fine then return found end
  if string.find(words_of(found), 'WRONGTYPE') then return false end
  error(words_of(found), 0)
end

-- read_books: the counters and the two lengths, of one instant; also on a full server, where a
-- transaction would be refused.
-- KEYS stats trajectories inflight   ARGV most_bytes [counter]...
-- Returns {{counter...}, queued, in flight}.
local function read_books(keys, args)
  return {
    unless_broken(read_hash, keys[1], args[1], { unpack(args, 2) }),
    unless_broken(read_length, keys[2]), unless_broken(read_length, keys[3]),
  }
end

-- read_learner: the lease, what the learner left beside its epoch, and the server's clock, of one
-- instant.   KEYS lock epoch   ARGV most_bytes most_figures
-- Returns {{holder, what is left in ms}, {number}, {name, text, ...}, {s, us}}.
local function read_learner(keys, args)
  return {
    unless_broken(read_lease, keys[1], args[1]), unless_broken(read_hash, keys[2], args[1], { 'number' }),
    unless_broken(read_pairs, keys[2], args[2], args[1]), redis.call('TIME'),
  }
end

-- read_fields: some fields of each of the hashes.   KEYS hash...   ARGV most_bytes field...
-- Returns {{text...}...}.
local function read_fields(keys, args)
  local found, names = {}, { unpack(args, 2) }
  for i, key in ipairs(keys) do found[i] = unless_broken(read_hash, key, args[1], names) end
  return found
end

-- read_names: a step of SCAN.   KEYS any of the run   ARGV most_bytes cursor pattern count
-- Returns {the next cursor, how many names are longer, name...}.
local function read_names(_, args)
  local scanned = redis.call('SCAN', args[2], 'MATCH', args[3], 'COUNT', args[4])
  local found = { scanned[1], 0 }
  for _, name in ipairs(scanned[2]) do
    if #name <= tonumber(args[1]) then
      table.insert(found, name)
    else
      found[2] = found[2] + 1
    end
  end
  return found
end

-- Lua's own errors, as of a number that is none, become replies with a word of ours; the server's
-- keep their words, without the line of this file where they arose.
local function with_replies(callback)
  return function(keys, args)
    local fine, reply = pcall(callback, keys, args)
    if fine then return reply end
    local words, is_of_lua = string.gsub(words_of(reply), '^[%w_@]+:%d+: ', '')
    if is_of_lua == 0 then return redis.error_reply(words) end
    return redis.error_reply('BROKEN a number is gone or is none: ' .. words)
  end
end

local function register(name, callback, ...)
  redis.register_function {
    function_name = name, callback = with_replies(callback), flags = { ... },
  }
end

register('impala5_push_begin', push_begin)
register('impala5_push_end', push_end)
register('impala5_read_books', read_books, 'no-writes')
register('impala5_read_learner', read_learner, 'no-writes')
register('impala5_read_fields', read_fields, 'no-writes')
register('impala5_read_names', read_names, 'no-writes')
-- allow-oom: what drains the queue and what the learner needs must work on a full server.
register('impala5_open', open, 'allow-oom')
register('impala5_join', join, 'allow-oom')
register('impala5_renew', renew, 'allow-oom')
register('impala5_release', release, 'allow-oom')
register('impala5_announce', announce, 'allow-oom')
register('impala5_claim', claim, 'allow-oom')
register('impala5_confirm', confirm, 'allow-oom')
register('impala5_commit', commit, 'allow-oom')
register('impala5_publish', publish, 'allow-oom')
