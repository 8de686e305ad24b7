#!lua name=impala3

-- The atomic steps of the transport, run inside the server. Each leaves the books balanced:
--   produced = consumed + dropped_oldest + dead_lettered + stale_rejected + abandoned
--              + LLEN trajectories + LLEN inflight
-- What comes onto the list around a push is counted too: as produced and, beside it, foreign.
-- No block passes through a function: as a text of Lua's it would be copied four times, and cost more
-- than all else. So a push and a claim are functions around a plain command that carries the block.
-- The number in the names is the protocol's: raised by one whenever a function's meaning changes,
-- so that two versions of the programs can share a server.
--
-- Errors start with a word that common/server/translation.py knows: HELD, FENCED, NORUN, CURSOR.

local COUNTERS = {
  'produced', 'consumed', 'dropped_oldest', 'dead_lettered', 'stale_rejected', 'abandoned',
  'dup_push', 'foreign',
}
local ENDS = {
  'consumed', 'dropped_oldest', 'dead_lettered', 'stale_rejected', 'abandoned',
}

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

-- open: takes the run over for a learner. In-flight blocks of the one before are abandoned.
-- KEYS lock epoch inflight claimed stats   ARGV holder lease_ms take_over least_epoch generation
-- Returns {epoch, abandoned, generation}. HELD when another learner's lease is alive.
local function open(keys, args)
  local lock, epoch, inflight, claimed, stats = unpack(keys)
  local holder, lease_ms, take_over, least_epoch, generation = unpack(args)
  local held = redis.call('GET', lock)
  if held and held ~= holder and take_over ~= '1' then
    return redis.error_reply('HELD ' .. redis.call('PTTL', lock) .. ' ' .. held)
  end
  local last = tonumber(redis.call('HGET', epoch, 'number') or '0')
  local number = math.max(last, tonumber(least_epoch)) + 1
  redis.call('HSET', epoch, 'number', number, 'holder', holder, 'committed', 0,
    'token', number .. ':' .. holder)
  redis.call('SET', lock, holder, 'PX', lease_ms)
  for _, name in ipairs(COUNTERS) do redis.call('HSETNX', stats, name, 0) end
  redis.call('HSETNX', stats, 'generation', generation)
  local abandoned = redis.call('LLEN', inflight)
  count(stats, 'abandoned', abandoned)
  redis.call('DEL', inflight, claimed)
  return { number, abandoned, redis.call('HGET', stats, 'generation') }
end

-- renew: keeps the lease, and leaves the learner's figures beside its epoch. Actors, who may not
-- read the lease, see by `renewed_at` in the spec that a learner is there.
-- KEYS lock spec epoch   ARGV token holder lease_ms [name figure]...
local function renew(keys, args)
  local lock, spec, epoch = unpack(keys)
  local over = fenced(epoch, args[1])
  if over then return over end
  redis.call('SET', lock, args[2], 'PX', args[3])
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
  redis.call('HSET', keys[1], 'json', args[2], 'digest', args[3], 'fingerprint', args[4],
    'state', args[5])
  return 1
end

-- A push is MULTI, push_begin, RPUSHX pushing BLOCK, push_end, EXEC: others see nothing between.
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

-- push_begin: lets a block in. One sent again (sequence not above the producer's last) is counted,
-- and kept out; so is one that finds the list full, if its producer waits for room.
-- KEYS trajectories pushing stats seq   ARGV producer sequence queue_blocks queue_policy
-- Returns 1 when it may come in, 0 when it had been stored before, -1 when the list is full.
local function push_begin(keys, args)
  local trajectories, pushing, stats, seq = unpack(keys)
  local producer, sequence, queue_blocks, queue_policy = unpack(args)
  if not has_books(stats) then return norun() end
  local known = redis.call('HGET', seq, producer)
  if not known then forget_silent(seq) end
  local last = tonumber(string.match(known or '', '^%d+') or '0')
  if tonumber(sequence) <= last then
    redis.call('HINCRBY', stats, 'dup_push', 1)
    return 0
  end
  local blocks = redis.call('LLEN', trajectories)
  if queue_policy == 'block' and blocks >= tonumber(queue_blocks) then return -1 end
  if blocks > 0 then redis.call('RENAME', trajectories, pushing) end
  redis.call('LPUSH', pushing, '') -- or there would be no list to push to when none waits
  return 1
end

-- push_end: gives the list its name back and counts the block. Bounded: the oldest goes.
-- KEYS and ARGV as push_begin
-- Returns 1 when stored, 0 when push_begin has kept it out.
local function push_end(keys, args)
  local trajectories, pushing, stats, seq = unpack(keys)
  local producer, sequence, queue_blocks = unpack(args)
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
  redis.call('HINCRBY', stats, 'produced', 1)
  return 1
end

-- Counts what came onto the list around a push.
local function count_foreign(trajectories, inflight, stats)
  local explained = tonumber(redis.call('HGET', stats, 'produced'))
  for _, ended in ipairs(redis.call('HMGET', stats, unpack(ENDS))) do
    explained = explained - tonumber(ended)
  end
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
-- `received` is how many this learner has received since it opened the run: later ones, of a claim
-- whose reply was lost, are given again.
-- With `most_bytes` above 0 no more are taken than have so many bytes together, but one at least.
-- KEYS trajectories inflight claimed epoch stats   ARGV token received most most_bytes
-- Returns how many there are for the caller, from the head of `claimed`.
local function claim(keys, args)
  local trajectories, inflight, claimed, epoch, stats = unpack(keys)
  local over = fenced(epoch, args[1])
  if over then return over end
  if not has_books(stats) then return norun() end
  local received, most, most_bytes = tonumber(args[2]), tonumber(args[3]), tonumber(args[4])
  local committed = tonumber(redis.call('HGET', epoch, 'committed'))
  local taken = committed + redis.call('LLEN', inflight)
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
  return blocks
end

-- confirm: whether what was read since `claim` was this learner's own: none has taken over.
-- KEYS trajectories epoch   ARGV token
-- Returns how many blocks wait.
local function confirm(keys, args)
  return fenced(keys[2], args[1]) or redis.call('LLEN', keys[1])
end

-- commit: settles the oldest in-flight blocks, each in one counter. `before` is how many were
-- committed before: a commit sent again is ignored. Dead ones come as counts by reason, `kinds` in
-- all, and the last of them leave a record each, oldest first; the last 100 are kept.
-- KEYS inflight stats epoch dead   ARGV token before consumed stale kinds [reason count]... [record]...
-- Returns how many are committed now.
local function commit(keys, args)
  local inflight, stats, epoch, dead = unpack(keys)
  local over = fenced(epoch, args[1])
  if over then return over end
  if not has_books(stats) then return norun() end
  local before, consumed, stale = tonumber(args[2]), tonumber(args[3]), tonumber(args[4])
  local records, buried = 6 + 2 * tonumber(args[5]), 0
  for i = 7, records, 2 do buried = buried + tonumber(args[i]) end
  local settled = consumed + stale + buried
  local committed = tonumber(redis.call('HGET', epoch, 'committed'))
  if committed == before + settled then return committed end
  if committed ~= before or settled > redis.call('LLEN', inflight) then
    return redis.error_reply('CURSOR ' .. before .. ' + ' .. settled .. ' does not follow '
      .. committed)
  end
  redis.call('LTRIM', inflight, settled, -1)
  redis.call('HSET', epoch, 'committed', committed + settled)
  count(stats, 'consumed', consumed)
  count(stats, 'stale_rejected', stale)
  count(stats, 'dead_lettered', buried)
  for i = 6, records - 1, 2 do count(stats, 'dead_lettered:' .. args[i], tonumber(args[i + 1])) end
  for i = records, #args do redis.call('LPUSH', dead, args[i]) end
  if #args >= records then redis.call('LTRIM', dead, 0, 99) end
  return committed + settled
end

-- publish: new weights, all fields at once; the version only grows.
-- KEYS weights epoch   ARGV token version payload digest
-- Returns 1 when stored, 0 when newer ones were there. The same ones again repair what is there.
local function publish(keys, args)
  local weights, epoch = unpack(keys)
  local over = fenced(epoch, args[1])
  if over then return over end
  local current = tonumber(redis.call('HGET', weights, 'version') or '-1')
  if tonumber(args[2]) < current then return 0 end
  redis.call('HSET', weights, 'version', args[2], 'payload', args[3], 'digest', args[4],
    'published_at', now())
  return 1
end

-- read_books: the counters and the two lengths, of one instant; also on a full server, where a
-- transaction would be refused.   KEYS stats trajectories inflight
local function read_books(keys)
  return { redis.call('HGETALL', keys[1]), redis.call('LLEN', keys[2]), redis.call('LLEN', keys[3]) }
end

-- allow-oom: what drains the queue and what the learner needs must work on a full server.
local function learner_only(name, callback)
  redis.register_function { function_name = name, callback = callback, flags = { 'allow-oom' } }
end

redis.register_function('impala3_push_begin', push_begin)
redis.register_function('impala3_push_end', push_end)
redis.register_function {
  function_name = 'impala3_read_books', callback = read_books, flags = { 'no-writes' },
}
learner_only('impala3_open', open)
learner_only('impala3_renew', renew)
learner_only('impala3_release', release)
learner_only('impala3_announce', announce)
learner_only('impala3_claim', claim)
learner_only('impala3_confirm', confirm)
learner_only('impala3_commit', commit)
learner_only('impala3_publish', publish)
