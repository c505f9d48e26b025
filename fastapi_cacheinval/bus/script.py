"""The one script of the purge log, heartbeat and purge in one, as a typed function.

Its keys share one hash tag, none has a TTL, and each says to which term it belongs, so that the loss of any is noticed:

| key | type | what |
|---|---|---|
| `state` | hash | see below |
| `log` | stream | the last lines, ids `<seq>-0`; `n` is the line's nonce, `m` the message that is published too |
| `tags` | sorted set | `h` or `s` and a tag, by its last hard or soft line; `!` and the term's nonce at infinity |
| `acks` | hash | replica id -> `<applied> <microseconds when it asked> <its bound in them>`; `!` -> the term's nonce |

The state's fields: `term`, `tnonce`, the term and the nonce that opened it; `seq`, `nonce`, the last line; `run`, the
server's replication id; `floor`, what was purged by this line and earlier ones is forgotten; `mark`, `marked`, `life`,
how that goes on: lines up to `mark` were written before `marked`, and nothing stored lives longer than `life`;
`opened`, `pruned`, when the term began and when silent replicas were last let go of; `eighths`, `filled`, the last line
of each eighth of the log's bytes that is full, and how many bytes are in the one that is being filled. `settled` is of
`bus.replication`.

No call takes long: it gives at most `page_bytes` of what was missed, in whole lines and at least one, writes one line,
and forgets at most a thousand tags and an eighth of the log.

It opens a new term, which makes everything that is stored unusable, when the state or a sentinel is gone, the
server's replication id is another, or the caller has read what this server does not have.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["LUA", "PAGE_BYTES", "PAGE_LUA", "SIGHT_LUA", "WAIT_LUA", "Call", "LogKeys", "log_keys"]

PAGE_BYTES = 131_072
"""Of missed lines in one reply: they are read and applied in a few milliseconds."""

LUA = """
local state, log, tags, acks = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local id, a_term, a_tnonce, a_seq, a_nonce = ARGV[1], tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4]), ARGV[5]
local fresh, bound, channel = ARGV[6], tonumber(ARGV[7]), ARGV[8]
local most_lines, most_bytes, page_bytes = tonumber(ARGV[9]), tonumber(ARGV[10]), tonumber(ARGV[11])
local most_tags, life = tonumber(ARGV[12]), tonumber(ARGV[13])
local soft, payload, lengths, names = ARGV[14], ARGV[15], ARGV[16], ARGV[17]

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local at = string.format('%.0f', now)

-- Who may not ask for it does without the comparison.
local run = ''
local info = redis.pcall('INFO', 'replication')
if type(info) == 'string' then run = string.match(info, 'master_replid:(%w+)') or '' end

local s = redis.call('HMGET', state,
  'term', 'tnonce', 'seq', 'nonce', 'run', 'floor', 'mark', 'marked', 'life', 'pruned', 'eighths', 'filled')
local term, tnonce, seq, nonce = tonumber(s[1] or 0), s[2] or '', tonumber(s[3] or 0), s[4] or ''
local kept_run, floor, mark, marked = s[5] or '', tonumber(s[6] or 0), tonumber(s[7] or 0), tonumber(s[8] or 0)
local longest, pruned, ours = tonumber(s[9] or 0), tonumber(s[10] or at), a_term == term and a_tnonce == tnonce
local whole = s[1] and s[2] and s[3] and s[4] and (run == '' or kept_run == '' or run == kept_run)
  and redis.call('ZSCORE', tags, '!' .. tnonce) and redis.call('HGET', acks, '!') == tnonce

-- The most of all calls: a heartbeat of who has read everything, and nothing else is due.
if payload == '' and whole and ours and a_seq == seq and a_nonce == nonce and life <= longest
  and now < marked + longest * 1000000 and now < pruned + 10 * bound and (run == '' or kept_run ~= '') then
  if id ~= '' then redis.call('HSET', acks, id, string.format('%.0f %.0f %.0f', a_seq, now, bound)) end
  return {0, s[1], tnonce, s[3], nonce, at, {}, 0}
end

local met = nil
local function id_of(number) return string.format('%.0f-0', number) end

local function broken()
  if not whole then return true end
  if a_term < term then return false end
  if not ours or a_seq > seq then return true end
  if a_seq == seq then return a_nonce ~= nonce end
  met = redis.call('XRANGE', log, id_of(a_seq), id_of(a_seq))[1]
  return met ~= nil and met[2][2] ~= a_nonce
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

if broken() then
  local since = opened()
  term, tnonce, seq, nonce, floor, mark, marked = math.max(term, a_term) + 1, fresh, 0, fresh, 0, 0, now
  ours, s[11], s[12] = false, '', '0'
  redis.call('UNLINK', log, tags, acks)
  redis.call('DEL', state)
  redis.call('HSET', state, 'term', string.format('%.0f', term), 'tnonce', tnonce, 'seq', '0', 'nonce', nonce,
    'run', run, 'floor', '0', 'mark', '0', 'marked', at, 'life', string.format('%.0f', life),
    'opened', since, 'pruned', at, 'eighths', '', 'filled', '0')
  redis.call('ZADD', tags, 'inf', '!' .. tnonce)
  redis.call('HSET', acks, '!', tnonce)
elseif run ~= '' and kept_run == '' then
  redis.call('HSET', state, 'run', run)
end

-- What the caller has missed, a page of it.
local missed, size, complete, next_line = {}, 0, true, a_seq + 1
if ours and a_seq < seq then
  complete = a_seq == 0 or met ~= nil
  while complete and next_line <= seq and size < page_bytes do
    local lines = redis.call('XRANGE', log, id_of(next_line), '+', 'COUNT', 16)
    complete = lines[1] ~= nil and lines[1][1] == id_of(next_line)
    for i = 1, complete and #lines or 0 do
      if size >= page_bytes then break end
      missed[#missed + 1], size, next_line = lines[i][2][4], size + #lines[i][2][4], next_line + 1
    end
  end
end
local more = ours and next_line <= seq and 1 or 0

if payload ~= '' then
  seq, nonce = seq + 1, fresh
  local number = string.format('%.0f', seq)
  local message = table.concat({'1', string.format('%.0f', term), tnonce, number, nonce, at}, ' ') .. '\\n' .. payload
  local eighths, filled, keep, least = s[11] or '', tonumber(s[12] or 0) + #message, 'MAXLEN', most_lines
  if filled * 8 >= most_bytes then
    eighths, filled = eighths .. ' ' .. number, 0
    local oldest, rest = string.match(eighths, '^ (%d+)(' .. string.rep(' %d+', 7) .. ')$')
    if oldest then eighths, keep, least = rest, 'MINID', id_of(oldest + 1) end
  end
  redis.call('XADD', log, keep, least, number .. '-0', 'n', nonce, 'm', message)
  local members, kind, from = {}, soft == '1' and 's' or 'h', 1
  for length in string.gmatch(lengths, '%d+') do
    members[#members + 1], members[#members + 2] = number, kind .. string.sub(names, from, from + length - 1)
    from = from + length
    if #members >= 1000 then
      redis.call('ZADD', tags, unpack(members))
      members = {}
    end
  end
  if #members > 0 then redis.call('ZADD', tags, unpack(members)) end
  redis.call('HSET', state, 'seq', number, 'nonce', nonce, 'eighths', eighths, 'filled', string.format('%.0f', filled))
  -- Who may not publish has written it all the same: it is read with the next heartbeat.
  redis.pcall('PUBLISH', channel, message)
end

if id ~= '' then
  local read = ours and a_seq or -1
  redis.call('HSET', acks, id, string.format('%.0f %.0f %.0f', read, now, bound))
end

-- Housekeeping: what was purged longer ago than anything stored lives, or is more than is kept, is forgotten.
if life > longest then redis.call('HSET', state, 'life', string.format('%.0f', life)) end
local over = payload ~= '' and redis.call('ZCARD', tags) - 1 - most_tags or 0
local due = now >= marked + math.max(life, longest) * 1000000
if over > 0 or due then
  local limit = over > 0 and seq or mark
  local old = redis.call('ZRANGEBYSCORE', tags, '-inf', string.format('%.0f', limit), 'WITHSCORES', 'LIMIT', 0,
    over > 0 and math.min(over, 1000) or 1000)
  for i = 1, #old, 2 do
    redis.call('ZREM', tags, old[i])
    floor = math.max(floor, tonumber(old[i + 1]))
  end
  if due and over <= 0 and #old < 2000 then
    floor = math.max(floor, mark)
    redis.call('HSET', state, 'mark', string.format('%.0f', seq), 'marked', at)
  end
  redis.call('HSET', state, 'floor', string.format('%.0f', floor))
end
if now >= pruned + 10 * bound then
  redis.call('HSET', state, 'pruned', at)
  local all = redis.call('HGETALL', acks)
  for i = 1, #all, 2 do
    local seen, length = string.match(all[i + 1], '^%-?%d+ (%d+) (%d+)$')
    if seen and now > seen + 10 * length then redis.call('HDEL', acks, all[i]) end
  end
end

local verdict = 0
if not ours or not complete or (more == 1 and #missed == 0) then verdict = 2 elseif #missed > 0 then verdict = 1 end
if verdict ~= 1 then missed = {} end
return {verdict, string.format('%.0f', term), tnonce, string.format('%.0f', seq), nonce, at, missed, more}
"""

SIGHT_LUA = """
local info = redis.pcall('INFO', 'replication')
return type(info) == 'string' and string.match(info, 'master_replid:%w+') and 1 or 0
"""

PAGE_LUA = """
local tags, state, tnonce, up_to, limit = KEYS[1], KEYS[2], ARGV[1], ARGV[2], tonumber(ARGV[3])
if not redis.call('ZSCORE', tags, '!' .. tnonce) then return false end
local s = redis.call('HMGET', state, 'floor', 'seq')
if not s[1] or not s[2] then return false end
return {s[1], s[2], redis.call('ZREVRANGEBYSCORE', tags, up_to, '(' .. s[1], 'WITHSCORES', 'LIMIT', 0, limit)}
"""

WAIT_LUA = """
local state, acks, term, tnonce, seq, bound = KEYS[1], KEYS[2], ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local s = redis.call('HMGET', state, 'term', 'tnonce', 'opened', 'run')
-- Acknowledgements may be missing: who gave them may hold a lease all the same.
if not s[1] or not s[2] or redis.call('HGET', acks, '!') ~= s[2] then return {1, 0, 0} end
local info = redis.pcall('INFO', 'replication')
local run = type(info) == 'string' and string.match(info, 'master_replid:(%w+)') or ''
if run ~= '' and s[4] and s[4] ~= '' and run ~= s[4] then return {1, 0, 0} end
-- A later term has made everything unusable that any replica had read: then only leases of the earlier one can matter.
local same = s[1] == term and s[2] == tnonce
local opened = tonumber(s[3] or 0)
local behind, there, young = 0, 0, 0
if now <= opened + bound then behind, young = 1, 1 end
local all = redis.call('HGETALL', acks)
for i = 1, #all, 2 do
  local read, seen, length = string.match(all[i + 1], '^(%-?%d+) (%d+) (%d+)$')
  if read and now <= seen + length then
    if same and tonumber(read) < seq then behind = behind + 1 else there = there + 1 end
  end
end
return {behind, there, young}
"""


class LogKeys(NamedTuple):
    """The keys of one log, which share a hash tag, and its channel."""

    state: bytes
    log: bytes
    tags: bytes
    acks: bytes
    channel: bytes


def log_keys(prefix: str) -> LogKeys:
    """The keys under a prefix that holds no brace."""
    return LogKeys(*(f"{{{prefix}}}:{name}".encode() for name in ("state", "log", "tags", "acks", "purges")))


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """The arguments of one call of the script.

    `replica` is the caller's id, empty for one that only publishes and takes no lease; `term` to `nonce` are what it
    has read; `fresh` is a nonce that nobody has used, for the line or the term that the call makes; `bound` seconds of
    a lease; `life` seconds that something stored may live. The log keeps `most_lines` and `most_bytes`, and a reply has
    `page_bytes` of what was missed. A line has a `payload` and its `tags`, a heartbeat neither.
    """

    replica: str
    term: int
    term_nonce: str
    seq: int
    nonce: str
    fresh: str
    bound: float
    channel: bytes
    most_lines: int = 10_000
    most_bytes: int = 8_388_608
    page_bytes: int = PAGE_BYTES
    most_tags: int = 1_000_000
    life: float = 60.0
    soft: bool = False
    payload: bytes = b""
    tags: tuple[bytes, ...] = ()

    def arguments(self) -> list[bytes | str | int]:
        """`ARGV`, in its order."""
        return [
            self.replica,
            self.term,
            self.term_nonce,
            self.seq,
            self.nonce,
            self.fresh,
            int(self.bound * 1_000_000),
            self.channel,
            self.most_lines,
            self.most_bytes,
            self.page_bytes,
            self.most_tags,
            int(self.life),
            int(self.soft),
            self.payload,
            # Two arguments in place of thousands, which take a client long to write.
            " ".join(map(str, map(len, self.tags))),
            b"".join(self.tags),
        ]
