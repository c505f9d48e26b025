"""The roll in Redis: one hash beside the purge log, which has a TTL and at most 64 fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi_cacheinval.connections.client import Client, Script, raising
from fastapi_cacheinval.errors import TierUnavailable

__all__ = ["RedisRoll"]

_LIFE_MS = 3_600_000
_MOST_SETS = 64
_LONGEST = 1024

# Each field is a set's name; its value is when somebody last said it, in 13 digits of milliseconds, and the set.
_ANSWER = Script("""
local roll, name, data, life, most, longest = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local all, others, count, known = redis.call('HGETALL', roll), {}, 0, false
for i = 1, #all, 2 do
  local seen = tonumber(string.sub(all[i + 1], 1, 13))
  if not seen or now > seen + life or #all[i + 1] > tonumber(longest) then
    redis.call('HDEL', roll, all[i])
  else
    count = count + 1
    if all[i] == name then known = true else
      others[#others + 1] = all[i]
      others[#others + 1] = string.sub(all[i + 1], 14)
    end
  end
end
if known or count < most then redis.call('HSET', roll, name, string.format('%013.0f', now) .. data) end
redis.call('PEXPIRE', roll, life)
return others
""")


class RedisRoll:
    """A `Roll` over one client; `prefix` is the namespace's and holds no brace."""

    def __init__(self, client: Client, prefix: str) -> None:
        self._client = client
        self._key = f"{{{prefix}}}:routes".encode()

    async def answer(self, name: bytes, data: bytes) -> Mapping[bytes, bytes]:
        arguments = (name, data, _LIFE_MS, _MOST_SETS, _LONGEST)
        with raising(TierUnavailable):
            found: list[Any] = [*await self._client.script(_ANSWER, (self._key,), arguments)]
            if not all(isinstance(part, bytes) for part in found):
                raise TypeError("not names and sets in turn")
            return dict(zip(found[::2], found[1::2], strict=True))
