"""The one script of the purge log, heartbeat and purge in one; `bus.call` says what goes in and comes out.

Its keys share one hash tag:

| key | type | what |
|---|---|---|
| `state` | hash | see below |
| `log` | stream | the last lines, ids `<seq>-0`; `n` is the line's nonce, `m` the message that is published too |
| `tags` | sorted set | `h` or `s` and a tag, by its last hard or soft line; `!` and the term's nonce at infinity |
| `acks` | hash | replica id -> `<applied> <microseconds when it asked> <its bound in them>`; `!` -> the term's nonce |
| `applied:<waiter>:<nonce>` | set | the replicas that have not said yet that they have applied a line |

The last is there while its writer waits, for four bounds at most. It is named by an argument: while a slot of a cluster
moves, a key that is not there would have the whole call refused, and so only what is about it fails. Nothing is proved
by its absence: the writer is told on the channel `applied:<waiter>` by the call that takes the last member away, or it
looks at the `acks`. The others have no TTL, and each says to which term it belongs, so that the loss of any is noticed.

The state's fields: `term`, `tnonce`, the term and the nonce that opened it; `seq`, `nonce`, the last line; `run`, the
server's replication id; `floor`, what was purged by this line and earlier ones is forgotten; `mark`, `marked`, `life`,
how that goes on: lines up to `mark` were written before `marked`, and nothing stored lives longer than `life`;
`opened`, `pruned`, when the term began and when silent replicas were last let go of; `eighths`, `filled`, the last line
of each eighth of the log's bytes that is full, and how many bytes are in the one that is being filled; `widest`, the
longest bound of a lease that anybody knows of, also of terms before. `settled` is of `bus.replication`.

No call takes long: it gives at most `page_bytes` of what was missed, in whole lines and at least one, writes one line,
and forgets at most a thousand tags and an eighth of the log.

It opens a new term, which makes everything that is stored unusable, when the state or a sentinel is gone, the
server's replication id is another, or the caller has read what this server does not have. The same when a key or a
field holds what no caller has written: nothing but a new term would end that.
"""

from __future__ import annotations

__all__ = ["LUA", "PAGE_BYTES"]

PAGE_BYTES = 131_072
"""Of missed lines in one reply: they are read and applied in a few milliseconds."""

LUA = """
local state, log, tags, acks = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local id, a_term, a_tnonce, a_seq, a_nonce, fresh, bound, a_widest, life =
  string.match(ARGV[1], '^(%S*) (%d+) (%S*) (%d+) (%S*) (%S*) (%d+) (%d+) (%d+)$')
bound, a_widest, life = tonumber(bound), tonumber(a_widest), tonumber(life)
-- Who only publishes holds no lease.
if id ~= '' then a_widest = math.max(a_widest, bound) end
local payload = ARGV[3] or ''

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local at = string.format('%.0f', now)

local s = redis.pcall('HMGET', state, 'term', 'tnonce', 'seq', 'nonce', 'run', 'marked', 'life', 'pruned', 'widest')
local tnonce, nonce, kept_run, marked = s[2] or '', s[4] or '', s[5] or '', tonumber(s[6] or 0)
local longest, pruned, widest = tonumber(s[7] or 0), tonumber(s[8] or at), tonumber(s[9] or 0)

-- Who may not ask for it does without the comparison.
local run, info = '', redis.pcall('INFO', 'replication')
if type(info) == 'string' then
  if kept_run ~= '' and string.find(info, 'master_replid:' .. kept_run, 1, true) then
    run = kept_run
  else
    run = string.match(info, 'master_replid:(%w+)') or ''
  end
end
local whole = s[1] and s[2] and s[3] and s[4] and (run == '' or kept_run == '' or run == kept_run)
  and type(redis.pcall('ZSCORE', tags, '!' .. tnonce)) == 'string' and redis.pcall('HGET', acks, '!') == tnonce

-- What the caller has applied and somebody waits for: the last of all tells.
local function tell_applied()
  for i = 4, #ARGV do
    if redis.pcall('SREM', ARGV[i], id) == 1 and redis.pcall('EXISTS', ARGV[i]) == 0 then
      local told, line = string.match(ARGV[i], '^(.*):(.*)$')
      redis.pcall('PUBLISH', told, line)
    end
  end
end

-- A time later than now is from before the clock was set back.
local function due(since, span) return now < since or now >= since + span end

-- The most of all calls: a heartbeat of who has read everything, and nothing else is due.
if payload == '' and whole and a_term == s[1] and a_tnonce == tnonce and a_seq == s[3] and a_nonce == nonce
  and marked and longest and pruned and widest
  and life <= longest and a_widest <= widest and not due(marked, longest * 1000000) and not due(pruned, 10 * bound)
  and (run == '' or kept_run ~= '') then
  if id ~= '' then redis.call('HSET', acks, id, string.format('%s %s %.0f', a_seq, at, bound)) end
  tell_applied()
  return table.concat({'0', a_term, tnonce, a_seq, nonce, at, '0 -1', string.format('%.0f', widest), fresh}, ' ')
end

-- Something else may have been written under these keys. What is refused for another reason is not about them.
local sound = true
local function ask(...)
  local found = redis.pcall(...)
  if type(found) ~= 'table' or not found.err then return found end
  if string.find(found.err, 'WRONGTYPE', 1, true) or string.find(found.err, 'equal or smaller', 1, true) then
    sound = false
    return false
  end
  return redis.call(...)
end
if not whole then
  ask('HGET', state, 'term')
  ask('ZSCORE', tags, '!')
  ask('HGET', acks, '!')
end
local rest = ask('HMGET', state, 'floor', 'mark', 'eighths', 'filled') or {}
local term, seq, floor, mark = tonumber(s[1] or 0), tonumber(s[3] or 0), tonumber(rest[1] or 0), tonumber(rest[2] or 0)
local eighths, filled = rest[3] or '', tonumber(rest[4] or 0)
local digits = table.concat({s[1] or '0', s[3] or '0', rest[1] or '0', rest[2] or '0', rest[4] or '0', s[6] or '0',
  s[7] or '0', s[8] or '0', s[9] or '0'}, ' ')
-- Digits that a number here is exact for.
if not string.find(digits, '^%d+ %d+ %d+ %d+ %d+ %d+ %d+ %d+ %d+$')
  or math.max(term, seq, floor, mark, filled, marked, longest, pruned, widest) >= 9007199254740992 then
  local known = s[1] and #s[1] <= 15 and string.find(s[1], '^%d+$')
  sound, term, seq, floor, mark, eighths, filled = false, known and tonumber(s[1]) or 0, 0, 0, 0, '', 0
  marked, longest, pruned, widest = 0, 0, now, 0
end
sound = sound and #nonce <= 64 and string.find(tnonce .. nonce .. kept_run, '^%w*$')
  and #eighths <= 120 and string.find(eighths, '^[ %d]*$') and not string.find(eighths, string.rep('%d', 17))
whole = whole and sound

a_term, a_seq = tonumber(a_term), tonumber(a_seq)
local ours = a_term == term and a_tnonce == tnonce
local most_lines, most_bytes, page_bytes, most_tags = string.match(ARGV[2], '^(%d+) (%d+) (%d+) (%d+)$')
most_lines, most_bytes, page_bytes, most_tags =
  tonumber(most_lines), tonumber(most_bytes), tonumber(page_bytes), tonumber(most_tags)
local channel, waited = ARGV[4], ARGV[6]
local met = nil
local function id_of(number) return string.format('%.0f-0', number) end

local function broken()
  if not whole then return true end
  if a_term < term then return false end
  if not ours or a_seq > seq then return true end
  if a_seq == seq then return a_nonce ~= nonce end
  met = (ask('XRANGE', log, id_of(a_seq), id_of(a_seq)) or {})[1]
  return not sound or (met ~= nil and met[2][2] ~= a_nonce)
end

-- A server whose data nobody has changed since it started has had no log: no lease is younger than the server. A caller
-- that knows a term has it from another server.
local function opened()
  if a_term > 0 then return at end
  local data = redis.pcall('INFO', 'persistence')
  if type(info) ~= 'string' or type(data) ~= 'string' then return at end
  local started = string.match(data, 'rdb_last_save_time:(%d+)')
  local changed = string.match(data, 'rdb_changes_since_last_save:(%d+)') ~= '0'
  local saved = string.match(data, 'rdb_saves:(%d+)') ~= '0'
  local followed = string.match(info, 'second_repl_offset:(%-?%d+)') ~= '-1'
  if changed or saved or followed or not started then return at end
  -- Its start is told in whole seconds.
  return string.format('%.0f', math.min(now, (started + 1) * 1000000))
end

local told_wider = a_widest > widest
widest = math.max(widest, a_widest)
local function open_term()
  local since = opened()
  term, tnonce, seq, nonce, floor, mark, marked = math.max(term, a_term) + 1, fresh, 0, fresh, 0, 0, now
  ours, eighths, filled = false, '', 0
  redis.call('UNLINK', log, tags, acks)
  redis.call('DEL', state)
  redis.call('HSET', state, 'term', string.format('%.0f', term), 'tnonce', tnonce, 'seq', '0', 'nonce', nonce,
    'run', run, 'floor', '0', 'mark', '0', 'marked', at, 'life', string.format('%.0f', life),
    'opened', since, 'pruned', at, 'eighths', '', 'filled', '0', 'widest', string.format('%.0f', widest))
  redis.call('ZADD', tags, 'inf', '!' .. tnonce)
  redis.call('HSET', acks, '!', tnonce)
end
if broken() then
  open_term()
elseif run ~= '' and kept_run == '' then
  redis.call('HSET', state, 'run', run)
end
if told_wider then redis.call('HSET', state, 'widest', string.format('%.0f', widest)) end

-- What the caller has missed, a page of it.
local missed, size, complete, next_line = {}, 0, true, a_seq + 1
if ours and a_seq < seq then
  complete = a_seq == 0 or met ~= nil
  while complete and next_line <= seq and size < page_bytes do
    local lines = ask('XRANGE', log, id_of(next_line), '+', 'COUNT', 16) or {}
    complete = lines[1] ~= nil and lines[1][1] == id_of(next_line)
    for i = 1, complete and #lines or 0 do
      if size >= page_bytes then break end
      local message = lines[i][2][4]
      -- None that a replica has written is as long.
      complete = message ~= nil and #message <= 1048576
      if not complete then break end
      missed[#missed + 1], size, next_line = message, size + #message, next_line + 1
    end
  end
end
local more = ours and next_line <= seq and 1 or 0

if payload ~= '' then
  local number, message
  local function add()
    seq, nonce = seq + 1, fresh
    number = string.format('%.0f', seq)
    message = table.concat({'1', string.format('%.0f', term), tnonce, number, nonce, at}, ' ') .. '\\n' .. payload
    local keep, least = 'MAXLEN', most_lines
    filled = filled + #message
    if filled * 8 >= most_bytes then
      eighths, filled = eighths .. ' ' .. number, 0
      local oldest, others = string.match(eighths, '^ (%d+)(' .. string.rep(' %d+', 7) .. ')$')
      if oldest then eighths, keep, least = others, 'MINID', id_of(oldest + 1) end
    end
    return ask('XADD', log, keep, least, number .. '-0', 'n', nonce, 'm', message)
  end
  if not add() then
    -- The log is none, or has a line that no caller has counted.
    open_term()
    missed, more = {}, 0
    if not add() then return redis.error_reply('ERR the log cannot be written') end
  end
  -- A number and a member in turn; the number is known here alone.
  local members = cmsgpack.unpack(ARGV[5])
  for i = 1, #members, 2 do members[i] = number end
  for i = 1, #members, 1000 do redis.call('ZADD', tags, unpack(members, i, math.min(i + 999, #members))) end
  redis.call('HSET', state, 'seq', number, 'nonce', nonce, 'eighths', eighths, 'filled', string.format('%.0f', filled))
  -- Who may not publish has written it all the same: it is read with the next heartbeat.
  redis.pcall('PUBLISH', channel, message)
end

-- Whoever else holds a lease now is to say that it has applied the line. In a young term not all of them are known:
-- those of the term before may last as long as any. A replica that has been silent for long is forgotten.
local pending, long, live = -1, math.max(bound, widest), {}
local awaited, prune = payload ~= '' and waited, due(pruned, 10 * bound)
if awaited or prune then
  local since = tonumber(redis.call('HGET', state, 'opened') or now) or now
  if since > now then
    since = now
    redis.call('HSET', state, 'opened', at)
  end
  awaited = awaited and now > since + long
  local all = redis.call('HGETALL', acks)
  for i = 1, #all, 2 do
    local read, seen, length = string.match(all[i + 1], '^(%-?%d+) (%d+) (%d+)$')
    if seen and tonumber(seen) > now then
      -- It was granted before the clock was set back, and lasts no longer than from now.
      seen = now
      redis.call('HSET', acks, all[i], table.concat({read, at, length}, ' '))
    end
    if seen and now <= seen + length and all[i] ~= id then live[#live + 1] = all[i] end
    if prune and seen and now > seen + 10 * length then redis.call('HDEL', acks, all[i]) end
  end
end
if prune then redis.call('HSET', state, 'pruned', at) end
if awaited then
  pending = #live
  for i = 1, #live, 1000 do
    local added = redis.pcall('SADD', waited, unpack(live, i, math.min(i + 999, #live)))
    if type(added) ~= 'number' then pending = -1 end
  end
  if #live > 0 then redis.pcall('PEXPIRE', waited, string.format('%.0f', long / 250)) end
end

if id ~= '' then
  local read = ours and a_seq or -1
  redis.call('HSET', acks, id, string.format('%.0f %.0f %.0f', read, now, bound))
  if ours and payload == '' then tell_applied() end
end

-- Housekeeping: what was purged longer ago than anything stored lives, or is more than is kept, is forgotten.
if life > longest then redis.call('HSET', state, 'life', string.format('%.0f', life)) end
local over = payload ~= '' and redis.call('ZCARD', tags) - 1 - most_tags or 0
local forgetting = due(marked, math.max(life, longest) * 1000000)
if over > 0 or forgetting then
  local limit = over > 0 and seq or mark
  limit = string.format('%.0f', limit)
  local most = over > 0 and math.min(over, 1000) or 1000
  local old = redis.call('ZRANGEBYSCORE', tags, '-inf', limit, 'LIMIT', 0, most)
  if #old > 0 then
    -- They are in the order of their lines.
    floor = math.max(floor, tonumber(redis.call('ZSCORE', tags, old[#old])))
    redis.call('ZREM', tags, unpack(old))
  end
  if forgetting and over <= 0 and #old < 1000 then
    floor = math.max(floor, mark)
    redis.call('HSET', state, 'mark', string.format('%.0f', seq), 'marked', at)
  end
  redis.call('HSET', state, 'floor', string.format('%.0f', floor))
end

local verdict = 0
if not ours or not complete or (more == 1 and #missed == 0) then verdict = 2 elseif #missed > 0 then verdict = 1 end
if verdict ~= 1 then missed = {} end
local head =
  string.format('%d %.0f %s %.0f %s %s %d %d %.0f %s', verdict, term, tnonce, seq, nonce, at, more, pending, widest,
    fresh)
if #missed > 0 then return {head, missed} end
return head
"""
