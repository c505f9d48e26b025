"""What the log asks where replicas of its server have to confirm what it says."""

from __future__ import annotations

__all__ = ["REPLICAS_LUA", "SETTLE_LUA"]

REPLICAS_LUA = """
local info = redis.pcall('INFO', 'replication')
return type(info) == 'string' and tonumber(string.match(info, 'connected_slaves:(%d+)') or -1) or -1
"""
"""How many replicas follow the server; -1 where it does not say."""

SETTLE_LUA = """
local time = redis.call('TIME')
local at = string.format('%.0f', time[1] * 1000000 + time[2])
local s = redis.call('HMGET', KEYS[1], 'tnonce', 'settled')
if s[1] == ARGV[1] and not s[2] then redis.call('HSET', KEYS[1], 'opened', at, 'settled', '1') end
return at
"""
"""Has a term begin now, for `WAIT_LUA`, unless that was said of it before; gives the time.

Who has had an answer of the term confirmed runs it: leases of an earlier term may have been confirmed until then.
"""
