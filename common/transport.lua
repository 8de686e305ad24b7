#!lua name=impala1

-- The atomic steps of the transport, run inside the server. Each leaves the books balanced:
--   produced = consumed + dropped_oldest + dead_lettered + stale_rejected + abandoned
--              + LLEN trajectories + LLEN inflight
-- What comes onto the list around `push` is counted too: as produced and, beside it, foreign.
-- The number in the names is the protocol's: raised by one whenever a function's meaning changes,
-- so that two versions of the programs can share a server.
--
-- Errors start with a word that common/transport.py knows: HELD, FENCED, NORUN, CURSOR.

local COUNTERS = {
  'produced', 'consumed', 'dropped_oldest', 'dead_lettered', 'stale_rejected', 'abandoned',
  'dup_push', 'foreign',
}
local ENDS = {
  'consumed', 'dropped_oldest', 'dead_lettered', 'stale_rejected', 'abandoned',
}

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

local function count(stats, name, amount)
  if amount > 0 then redis.call('HINCRBY', stats, name, amount) end
end

-- open: takes the run over for a learner. In-flight blocks of the one before are abandoned.
-- KEYS lock epoch inflight stats   ARGV holder lease_ms take_over least_epoch generation
-- Returns {epoch, abandoned, generation}. HELD when another learner's lease is alive.
local function open(keys, args)
  local lock, epoch, inflight, stats = unpack(keys)
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
  redis.call('DEL', inflight)
  return { number, abandoned, redis.call('HGET', stats, 'generation') }
end

-- renew: keeps the lease, and leaves the learner's figures beside its epoch.
-- KEYS lock epoch   ARGV token holder lease_ms [name figure]...
local function renew(keys, args)
  local over = fenced(keys[2], args[1])
  if over then return over end
  redis.call('SET', keys[1], args[2], 'PX', args[3])
  for i = 4, #args, 2 do redis.call('HSET', keys[2], 'learner:' .. args[i], args[i + 1]) end
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

-- push: one block from an actor. Bounded: the oldest goes, and is counted. A block sent again
-- (sequence not above the producer's last) is counted and ignored.
-- KEYS trajectories stats seq   ARGV queue_blocks producer sequence payload
-- Returns 1 when stored, 0 when it had been stored before.
local function push(keys, args)
  local trajectories, stats, seq = unpack(keys)
  local queue_blocks, producer, sequence, payload = unpack(args)
  if not has_books(stats) then return norun() end
  local last = tonumber(redis.call('HGET', seq, producer) or '0')
  if tonumber(sequence) <= last then
    redis.call('HINCRBY', stats, 'dup_push', 1)
    return 0
  end
  local excess = redis.call('LLEN', trajectories) + 1 - tonumber(queue_blocks)
  if excess > 0 then
    redis.call('LTRIM', trajectories, excess, -1)
    count(stats, 'dropped_oldest', excess)
  end
  redis.call('RPUSH', trajectories, payload)
  redis.call('HSET', seq, producer, sequence)
  redis.call('HINCRBY', stats, 'produced', 1)
  return 1
end

-- Counts what came onto the list around `push`.
local function count_foreign(trajectories, inflight, stats)
  local explained = tonumber(redis.call('HGET', stats, 'produced'))
  for _, ended in ipairs(redis.call('HMGET', stats, unpack(ENDS))) do
    explained = explained - tonumber(ended)
  end
  local there = redis.call('LLEN', trajectories) + redis.call('LLEN', inflight)
  count(stats, 'produced', there - explained)
  count(stats, 'foreign', there - explained)
end

-- claim: the next blocks, moved to in-flight. `received` is how many this learner has received
-- since it opened the run: a claim whose reply was lost is answered with the same blocks again.
-- KEYS trajectories inflight epoch stats   ARGV token received most
local function claim(keys, args)
  local trajectories, inflight, epoch, stats = unpack(keys)
  local over = fenced(epoch, args[1])
  if over then return over end
  if not has_books(stats) then return norun() end
  local received, most = tonumber(args[2]), tonumber(args[3])
  local committed = tonumber(redis.call('HGET', epoch, 'committed'))
  local claimed = committed + redis.call('LLEN', inflight)
  if received < committed or received > claimed then
    return redis.error_reply('CURSOR received ' .. received .. ' is not in ' .. committed
      .. ' .. ' .. claimed)
  end
  if most == 0 then return {} end
  if received < claimed then
    return redis.call('LRANGE', inflight, received - committed, received - committed + most - 1)
  end
  count_foreign(trajectories, inflight, stats)
  local blocks = {}
  for i = 1, most do
    local block = redis.call('LMOVE', trajectories, inflight, 'LEFT', 'RIGHT')
    if not block then break end
    blocks[i] = block
  end
  return blocks
end

-- commit: settles the oldest in-flight blocks, each in one counter. `before` is how many were
-- committed before: a commit sent again is ignored. Dead ones leave a record, the last 100 kept.
-- KEYS inflight stats epoch dead   ARGV token before consumed stale [reason record]...
-- Returns how many are committed now.
local function commit(keys, args)
  local inflight, stats, epoch, dead = unpack(keys)
  local over = fenced(epoch, args[1])
  if over then return over end
  if not has_books(stats) then return norun() end
  local before, consumed, stale = tonumber(args[2]), tonumber(args[3]), tonumber(args[4])
  local buried = (#args - 4) / 2
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
  for i = 5, #args, 2 do
    redis.call('HINCRBY', stats, 'dead_lettered:' .. args[i], 1)
    redis.call('LPUSH', dead, args[i + 1])
    redis.call('LTRIM', dead, 0, 99)
  end
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
  local now = redis.call('TIME')
  redis.call('HSET', weights, 'version', args[2], 'payload', args[3], 'digest', args[4],
    'published_at', now[1] .. '.' .. string.format('%06d', now[2]))
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

redis.register_function('impala1_push', push)
redis.register_function {
  function_name = 'impala1_read_books', callback = read_books, flags = { 'no-writes' },
}
learner_only('impala1_open', open)
learner_only('impala1_renew', renew)
learner_only('impala1_release', release)
learner_only('impala1_announce', announce)
learner_only('impala1_claim', claim)
learner_only('impala1_commit', commit)
learner_only('impala1_publish', publish)
