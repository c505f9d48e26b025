"""The scripts that only look at the purge log: whether it tells which server it is, its tags, who has read how far."""

from __future__ import annotations

__all__ = ["PAGE_LUA", "SIGHT_LUA", "WAIT_LUA"]

SIGHT_LUA = """
local info = redis.pcall('INFO', 'replication')
return type(info) == 'string' and string.match(info, 'master_replid:%w+') and 1 or 0
"""

PAGE_LUA = """
local tags, state, tnonce, up_to, limit = KEYS[1], KEYS[2], ARGV[1], ARGV[2], tonumber(ARGV[3])
if not redis.call('ZSCORE', tags, '!' .. tnonce) then return false end
local s = redis.call('HMGET', state, 'floor', 'seq')
if not tonumber(s[1]) or not tonumber(s[2]) then return false end
return {s[1], s[2], redis.call('ZREVRANGEBYSCORE', tags, up_to, '(' .. s[1], 'WITHSCORES', 'LIMIT', 0, limit)}
"""

WAIT_LUA = """
local state, acks, term, tnonce, seq, bound = KEYS[1], KEYS[2], ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local s = redis.call('HMGET', state, 'term', 'tnonce', 'opened', 'run', 'widest')
-- A lease of the term before may last as long as any that is known of.
bound = math.max(bound, tonumber(s[5] or 0))
-- Acknowledgements may be missing: who gave them may hold a lease all the same.
if not s[1] or not s[2] or redis.call('HGET', acks, '!') ~= s[2] then return {1, 0, 0, bound, -1} end
local info = redis.pcall('INFO', 'replication')
local run = type(info) == 'string' and string.match(info, 'master_replid:(%w+)') or ''
if run ~= '' and s[4] and s[4] ~= '' and run ~= s[4] then return {1, 0, 0, bound, -1} end
-- A later term has made everything unusable that any replica had read: then only leases of the earlier one can matter.
local same = s[1] == term and s[2] == tnonce
local opened = tonumber(s[3] or 0)
local behind, there, young, least = 0, 0, 0, seq
if now <= opened + bound then behind, young = 1, 1 end
local all = redis.call('HGETALL', acks)
for i = 1, #all, 2 do
  local read, seen, length = string.match(all[i + 1], '^(%-?%d+) (%d+) (%d+)$')
  if read and now <= seen + length then
    if same then least = math.min(least, tonumber(read)) end
    if same and tonumber(read) < seq then behind = behind + 1 else there = there + 1 end
  end
end
return {behind, there, young, bound, least}
"""
