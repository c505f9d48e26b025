"""The build that the chaos run must find at fault: it deletes responses at a purge, publishes the purge, and no more.

Most caches work like this. The package's own log carries its messages, so that the same faults lose them.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterable
from math import inf
from typing import Any, Self

from redis.asyncio import Redis
from redis.exceptions import RedisError

from fastapi_cacheinval import HTTPCache, Receipt
from fastapi_cacheinval.cache import internals_of
from fastapi_cacheinval.core.log_types import LogEntry, Missed, Next, Reply, Reset, Term
from fastapi_cacheinval.core.replica import Replica
from fastapi_cacheinval.core.stored import Stamp, StoredResponse
from fastapi_cacheinval.engine.engine import Engine, Kept
from fastapi_cacheinval.engine.internals import Internals
from fastapi_cacheinval.ports.store import Account
from fastapi_cacheinval.stores.memory import MemoryStore

__all__ = ["DeletingCache"]


class _IndexedStore(MemoryStore[Kept]):
    """An L1 that knows the keys of each tag."""

    __slots__ = ("_keys",)

    def __init__(self, max_bytes: int) -> None:
        super().__init__(max_bytes)
        self._keys: defaultdict[str, set[bytes]] = defaultdict(set)

    def put(
        self, key: bytes, value: Kept, weight: int, until: float, now: float, account: Account | None = None
    ) -> bool:
        if isinstance(value, StoredResponse):
            for tag in value.tags:
                self._keys[tag].add(key)
        return super().put(key, value, weight, until, now, account)

    def delete(self, tags: Iterable[str]) -> None:
        """Delete every entry that has one of the tags."""
        for tag in tags:
            for key in self._keys.pop(tag, ()):
                self.remove(key)


class _DeletingReplica(Replica):
    """It deletes at each message, and serves every entry that is left."""

    __slots__ = ("_delete",)

    def __init__(self, delete: Callable[[Iterable[str]], None], staleness_bound: float) -> None:
        super().__init__(staleness_bound=staleness_bound)
        self._delete = delete
        self.lease_until = inf

    def apply_message(self, line: LogEntry, now: float) -> Next:
        self._delete(line.tags)
        return Next.NOTHING

    def apply_reply(self, reply: Reply, sent: float, now: float, *, lease: bool = True) -> Next:
        # Missed purges stay missed. The replica takes only their last number, so that the log sends no more of them.
        match reply:
            case Reset(term, seq, nonce):
                self.term, self.applied, self.nonce = term, seq, nonce
            case Missed(term, lines) if lines:
                self.term, self.applied, self.nonce = term, lines[-1].seq, lines[-1].nonce
            case _:
                pass
        return Next.NOTHING

    def let_go(self) -> None:
        """There is no lease to be given up."""

    def live(self, now: float) -> bool:
        return True

    def fenced(self, tags: Iterable[str]) -> bool:
        return False

    def adopt(self, term: Term, as_of: int, now: float) -> Stamp | None:
        return Stamp(0, 0, 0, -inf)

    def stale_from(self, stamp: Stamp, tags: tuple[str, ...], now: float, *, own: bool = True) -> float | None:
        return inf


class _DeletingInternals(Internals):
    """The parts of a cache whose purge deletes here and in Redis, and publishes."""

    redis: Redis

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._publish = self.purger.purge
        vars(self.purger)["purge"] = self._delete_and_publish

    def _engine(self) -> Engine:
        self._near = store = _IndexedStore(self.settings.l1_max_bytes)
        return Engine(self.settings, self.clock, store, _DeletingReplica(store.delete, self.settings.staleness_bound))

    async def _delete_and_publish(self, tags: tuple[str, ...], **more: Any) -> Receipt:
        self._near.delete(tags)
        # This deletes more than the tags name, which costs hits and avoids violations.
        with contextlib.suppress(RedisError, OSError, TimeoutError):
            found = [key async for key in self.redis.scan_iter(f"{self.settings.namespace}:*:r", count=1000)]
            if found:
                await self.redis.unlink(*found)
        return await self._publish(tags, **more)


class DeletingCache(HTTPCache):
    """An `HTTPCache` whose purge deletes here and in Redis, and publishes."""

    _parts = _DeletingInternals

    @classmethod
    def from_url(cls, url: str, **options: Any) -> Self:
        cache = super().from_url(url, **options)
        assert isinstance(cache, cls)
        internals = internals_of(cache)
        assert isinstance(internals, _DeletingInternals)
        internals.redis = Redis.from_url(url, socket_timeout=cache.settings.redis_timeout)
        return cache
