"""Single values in L2: read with what they prove, written with how long they live, and counted."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from typing import NamedTuple, TypeVar

from fastapi_cacheinval.core.log_types import Term
from fastapi_cacheinval.core.selecting import VaryRecord
from fastapi_cacheinval.core.stored import StoredResponse
from fastapi_cacheinval.engine.engine import Engine, Kept
from fastapi_cacheinval.engine.fill_lock import FillLock
from fastapi_cacheinval.ports.l2_store import ID_BYTES, Found, L2Store
from fastapi_cacheinval.ports.telemetry import Telemetry
from fastapi_cacheinval.stores.codec import Codec, Unreadable

__all__ = ["Filled", "L2Values"]

Result = TypeVar("Result")


class Filled(NamedTuple):
    """What a fill of a `key` gave, on its way into L2.

    `record` is what is known of the key's variants, where the response is one of them. `term` is that of the response's
    stamp. `fill_lock` is let go of with it. It lives at most `most_ms` milliseconds.
    """

    key: bytes
    stored: StoredResponse
    record: Kept | None
    term: Term
    fill_lock: FillLock | None
    most_ms: int | None


class L2Values:
    """Reads and writes values; both raise `TierUnavailable`.

    `server_time` gives the log's time at one of ours, None where it is not known.
    """

    def __init__(
        self,
        store: L2Store,
        codec: Codec,
        engine: Engine,
        telemetry: Telemetry,
        server_time: Callable[[float], float | None],
    ) -> None:
        self.store = store
        self._codec = codec
        self._replica = engine.replica
        self._clock = engine.clock
        self._telemetry = telemetry
        self._server_time = server_time

    async def _timed(self, operation: str, work: Awaitable[Result]) -> Result:
        began, outcome = self._clock.now(), "failed"
        try:
            result = await work
            outcome = "done"
        finally:
            self._telemetry.l2_took(operation, self._clock.now() - began, outcome)
        return result

    async def read(self, key: bytes) -> tuple[Kept | None, bytes]:
        """What is stored under a key and may be used here, and the id of what was seen there."""
        asked = self._clock.now()
        found = await self._timed("get", self.store.read(key))
        if found is None:
            self._telemetry.l2("miss")
            return None, b""
        seen = found.data[:ID_BYTES]
        try:
            value = self._decoded(key, found, asked)
        except Unreadable as error:
            self._telemetry.l2(f"unreadable-{error.reason}")
            return None, seen
        if value is None:
            self._telemetry.l2("outdated")
            return None, seen
        return value, seen

    async def peek(self, key: bytes) -> Kept | None:
        """A value to be looked at, which is not counted as read; raises `TierUnavailable`."""
        asked = self._clock.now()
        found = await self.store.read(key)
        try:
            return None if found is None else self._decoded(key, found, asked)
        except Unreadable:
            return None

    def _decoded(self, key: bytes, found: Found, asked: float) -> Kept | None:
        return self._codec.decode(
            found.data,
            key=key,
            pttl_ms=found.pttl_ms,
            asked=asked,
            server_time=self._server_time(asked),
            adopt=lambda term, as_of: self._replica.adopt(term, as_of, self._clock.now()),
        )

    def _encoded(self, value: Kept, key: bytes, until: float, most_ms: int | None, term: Term) -> tuple[bytes, int]:
        """The bytes to store and for how many milliseconds; none for what no reader would take."""
        now = self._clock.now()
        life_ms = int((until - now) * 1000)
        life_ms = life_ms if most_ms is None else min(life_ms, most_ms)
        if life_ms <= 0:
            return b"", 0
        try:
            drawn = secrets.token_bytes(ID_BYTES)
            trace = (("traceparent", value.trace),) if isinstance(value, StoredResponse) and value.trace else ()
            data = self._codec.encode(
                value,
                key=key,
                id=drawn,
                term=term,
                life_ms=life_ms,
                now=now,
                trace=trace,
                server_time=self._server_time(now),
            )
        except ValueError:
            self._telemetry.l2("unwritable")
            return b"", 0
        return data, life_ms

    async def drop(self, key: bytes) -> None:
        """Let go of what is stored under a key."""
        await self.store.write(key, b"", 0)

    async def write(self, filled: Filled) -> str:
        """Store what a fill gave, and let go of its lock; what became of it."""
        return await self._timed("set", self._write(filled))

    async def _write(self, filled: Filled) -> str:
        key, stored, record, term, fill_lock, most_ms = filled
        if isinstance(record, VaryRecord):
            data, life_ms = self._encoded(record, key, record.until, None, term)
            if data:
                await self.store.write(key, data, life_ms)
        data, life_ms = self._encoded(stored, stored.key, stored.usable_until, most_ms, term)
        if fill_lock is not None and fill_lock.key == stored.key:
            await fill_lock.release(data=data, life_ms=life_ms)
        else:
            if data:
                await self.store.write(stored.key, data, life_ms)
            if fill_lock is not None:
                await fill_lock.release()
        if not data:
            # Nobody could use it by now, or it cannot be put into bytes; but it is newer than what stands there.
            await self.drop(stored.key)
            return "unwritten"
        self._telemetry.l2("write")
        return "stored"
