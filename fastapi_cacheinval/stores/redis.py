"""L2 in Redis, as one event loop reaches it.

All keys of one cache key share a slot, and all have a TTL: `r` is what is stored, `f` the fill lock (its owner, or `!`
where what the key answers could not be shared), `w` says that somebody waits for it.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error
from collections.abc import AsyncIterator, Callable
from typing import Any

from fastapi_cacheinval.connections.client import Away, Client, Script, raising
from fastapi_cacheinval.errors import TierUnavailable
from fastapi_cacheinval.ports.l2_store import ID_BYTES, Found, Lock

__all__ = ["RedisStore"]

# What begins with its key is a reply to no other call; that of a connection which is one reply behind does not.
_READ = Script("return {KEYS[1], redis.call('GET', KEYS[1]), redis.call('PTTL', KEYS[1])}")

_MOST_LOCK_MS = 60_000

_CLAIM = Script(f"""
local owner, life, seen = ARGV[1], ARGV[2], ARGV[3]
local data = redis.call('GET', KEYS[1])
if data and string.sub(data, 1, {ID_BYTES}) ~= seen then
  return {{KEYS[1], 'found', data, redis.call('PTTL', KEYS[1])}}
end
local holder = redis.call('GET', KEYS[2])
local left = holder and redis.call('PTTL', KEYS[2])
-- No replica has set one that lasts so long: it would delay each of these forwards.
if holder and (left < 0 or left > math.max(life, {_MOST_LOCK_MS})) then holder = false end
if holder == '!' then return {{KEYS[1], 'refused'}} end
if holder and holder ~= owner then
  redis.call('SET', KEYS[3], '1', 'PX', life)
  return {{KEYS[1], 'held'}}
end
redis.call('SET', KEYS[2], owner, 'PX', life)
return {{KEYS[1], 'got'}}
""")

_RENEW = Script("""
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[2], ARGV[2])
""")

_RELEASE = Script("""
local owner, channel, name, refused, life, data = ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5], ARGV[6]
if data ~= '' then redis.call('SET', KEYS[1], data, 'PX', life) end
if redis.call('GET', KEYS[2]) == owner then
  if refused > 0 then redis.call('SET', KEYS[2], '!', 'PX', refused) else redis.call('DEL', KEYS[2]) end
end
if redis.call('DEL', KEYS[3]) == 1 then redis.pcall('PUBLISH', channel, name) end
return 1
""")


def _found(data: object, pttl: object) -> Found:
    """A value and its remaining milliseconds; raises `TypeError` for what no script of this module replies."""
    if not isinstance(data, bytes) or not isinstance(pttl, int):
        raise TypeError(f"{type(data).__name__} and {type(pttl).__name__} are no value and its life")
    return Found(data, pttl)


def _begins_with(key: bytes) -> Callable[[Any], bool]:
    def begins(reply: Any) -> bool:
        return type(reply) is list and reply[:1] == [key]

    return begins


def _name(key: bytes) -> str:
    return urlsafe_b64encode(key).decode().rstrip("=")


class RedisStore:
    """An `L2Store` over one client; `prefix` begins all its keys and holds no brace."""

    def __init__(self, client: Client, prefix: str, *, quiet: float) -> None:
        self._client = client
        self._prefix = prefix
        self._channel = f"{{{prefix}}}:fills".encode()
        self._quiet = quiet

    def _keys(self, key: bytes) -> tuple[bytes, bytes, bytes]:
        stem = f"{self._prefix}:{{{_name(key)}}}:".encode()
        return stem + b"r", stem + b"f", stem + b"w"

    async def read(self, key: bytes) -> Found | None:
        name = self._keys(key)[0]
        with raising(TierUnavailable):
            _, data, pttl = await self._client.script(_READ, (name,), (), answered_by=_begins_with(name))
            return None if data is None else _found(data, pttl)

    async def write(self, key: bytes, data: bytes, life_ms: int) -> None:
        name = self._keys(key)[0]
        with raising(TierUnavailable):
            if data:
                await self._client.command("SET", name, data, "PX", life_ms)
            else:
                await self._client.command("UNLINK", name)

    async def claim(self, key: bytes, owner: str, seconds: float, seen: bytes) -> Found | Lock:
        names, arguments = self._keys(key), (owner, int(seconds * 1000), seen)
        with raising(TierUnavailable):
            _, word, *found = await self._client.script(_CLAIM, names, arguments, answered_by=_begins_with(names[0]))
            if found:
                return _found(*found)
            return {b"got": Lock.GOT, b"refused": Lock.REFUSED}.get(word, Lock.HELD)

    async def renew(self, key: bytes, owner: str, seconds: float) -> bool:
        with raising(TierUnavailable):
            return bool(await self._client.script(_RENEW, self._keys(key), (owner, int(seconds * 1000))))

    async def release(
        self, key: bytes, owner: str, *, data: bytes = b"", life_ms: int = 0, refused_ms: int = 0
    ) -> None:
        arguments = (owner, self._channel, _name(key), refused_ms)
        with raising(TierUnavailable):
            try:
                await self._client.script(_RELEASE, self._keys(key), (*arguments, life_ms, data))
            except Away:
                if not data:
                    raise
                # A full server takes nothing, but lets go of the lock.
                await self._client.script(_RELEASE, self._keys(key), (*arguments, 0, b""))
                raise

    async def woken(self) -> AsyncIterator[bytes]:
        with raising(TierUnavailable):
            async for message in self._client.messages(self._channel, quiet=self._quiet):
                if message is not None:
                    name = message[1]
                    try:
                        yield urlsafe_b64decode(name + b"=" * (-len(name) % 4))
                    except Error:
                        continue

    async def close(self) -> None:
        await self._client.close()
