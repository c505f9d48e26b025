"""L2 on one event loop: reading what other replicas have stored, and writing.

The rules: nothing is read or taken without a live lease, asked again when the reply has arrived; what is found is
checked like any stored response and kept in L1; if anything fails, the request goes forward, as `fill_locks` allows.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Protocol

from fastapi_cacheinval.core.keys import is_local
from fastapi_cacheinval.core.selecting import VaryRecord
from fastapi_cacheinval.core.stored import StoredResponse
from fastapi_cacheinval.engine.engine import Engine, Kept
from fastapi_cacheinval.engine.fill_locks import (
    Answered,
    Chosen,
    FillLock,
    FillLocks,
    Granted,
    Led,
    Own,
    Refused,
    Unavailable,
)
from fastapi_cacheinval.engine.flights import Flight
from fastapi_cacheinval.engine.l2_values import Filled, L2Values
from fastapi_cacheinval.engine.own_writes import OwnWrites
from fastapi_cacheinval.errors import TierUnavailable
from fastapi_cacheinval.grammar.fields import RawHeaders
from fastapi_cacheinval.ports.telemetry import Telemetry
from fastapi_cacheinval.ports.tracing import Tracing

__all__ = ["L2Tier"]

logger = logging.getLogger("fastapi_cacheinval.l2")

_PROBATION_MS = 30_000
_MOST_ASKED = 10_000

Wanted = Callable[[StoredResponse], bool]


class Beside(Protocol):
    """Work in the background over the same client."""

    def start(self) -> None:
        """Begin, in no request's context."""
        ...

    async def close(self) -> None:
        """End; never raises."""
        ...


class L2Tier:
    """Reads, writes and locks for one event loop. `own` runs work that outlives its request.

    `lives` hears for how many seconds each stored response lives. The work in `beside` starts and stops with it.
    """

    def __init__(
        self,
        values: L2Values,
        engine: Engine,
        telemetry: Telemetry,
        tracing: Tracing,
        own: Own,
        lives: Callable[[float], None],
        beside: Sequence[Beside] = (),
    ) -> None:
        self._values = values
        self._engine = engine
        self._replica = engine.replica
        self._clock = engine.clock
        self._telemetry = telemetry
        self._tracing = tracing
        self._own = own
        self._lives = lives
        self._beside = beside
        # How many requests wait for a forward of another replica.
        self.waiting = 0
        self._asked: OrderedDict[bytes, None] = OrderedDict()
        self._own_writes = OwnWrites(values.drop)
        self._locks = FillLocks(
            values.store,
            engine.clock,
            own,
            bound=engine.settings.staleness_bound,
            open_=lambda: self.open,
            before_close=self._end_what_is_beside,
        )

    def start(self) -> None:
        """Begin to hear of released locks, in no request's context."""
        self._locks.start()
        for each in self._beside:
            each.start()

    async def close(self) -> None:
        """End; never raises."""
        await self._locks.close()

    async def _end_what_is_beside(self) -> None:
        for each in self._beside:
            await each.close()

    @property
    def open(self) -> bool:
        """Whether it may be asked now: under a live lease."""
        return self._replica.live(self._clock.now())

    def _away(self, error: TierUnavailable) -> None:
        self._telemetry.l2("unavailable")
        logger.debug("%s", error)

    # -- reading --------------------------------------------------------------------------------

    async def _find(self, key: bytes, headers: RawHeaders) -> Chosen:
        known = self._engine.store.get(key)
        seen = b""
        if not isinstance(known, VaryRecord):
            value, seen = await self._read(key)
            if not isinstance(value, VaryRecord):
                return Chosen(self._usable(value), key, seen)
            known = self._engine.join(key, value)
        newest = b""
        for variant in known.keys_for(headers):
            value, found = await self._read(variant)
            usable = self._usable(value)
            if usable is not None:
                return Chosen(usable, variant, found)
            if not newest:
                newest, seen = variant, found
        return Chosen(None, newest or key, seen)

    async def _seen(self, key: bytes, headers: RawHeaders) -> Chosen:
        with self._tracing.span("cacheinval.l2.get") as span:
            chosen = await self._find(key, headers)
            span.note("cacheinval.result", "miss" if chosen.stored is None else "hit")
        return chosen

    async def look(self, key: bytes, headers: RawHeaders) -> None:
        """Keep in L1 what is stored for a request that cannot lead a forward, such as a HEAD."""
        if not is_local(key) and self.open:
            try:
                await self._seen(key, headers)
            except TierUnavailable as error:
                self._away(error)

    async def _read(self, key: bytes) -> tuple[Kept | None, bytes]:
        await self._own_writes.settle(key)
        return await self._values.read(key)

    def _usable(self, value: Kept | None) -> StoredResponse | None:
        """A response that may be handed over, kept in L1 from now on."""
        if not isinstance(value, StoredResponse):
            return None
        if self._engine.stale_from(value, self._clock.now()) is None:
            self._telemetry.l2("outdated")
            return None
        self._telemetry.l2("hit")
        self._engine.put(value, self._clock.now())
        return value

    async def peek(self, key: bytes, headers: RawHeaders) -> StoredResponse | None:
        """What is stored for a request, to be looked at: nothing is kept here, counted or locked.

        None where it may not be asked now. Raises `TierUnavailable`.
        """
        if is_local(key) or not self.open:
            return None
        value = await self._values.peek(key)
        if isinstance(value, VaryRecord):
            for variant in value.keys_for(headers):
                value = await self._values.peek(variant)
                if isinstance(value, StoredResponse):
                    break
        return value if isinstance(value, StoredResponse) else None

    # -- leading --------------------------------------------------------------------------------

    async def lead(self, key: bytes, headers: RawHeaders, deadline: float, wanted: Wanted) -> Led:
        """Before a forward: take what is `wanted` from another replica, or the right to forward, until the deadline.

        A key that only this process knows is neither read nor locked: the same bytes may mean another thing elsewhere.
        """
        if is_local(key):
            return Unavailable(None, away=False)

        async def find(*, waiting: bool) -> Chosen:
            # While it waits, one span is around all of them.
            return await (self._find(key, headers) if waiting else self._seen(key, headers))

        try:
            return await self._locks.lead(find, deadline, wanted, self._waits)
        except TierUnavailable as error:
            self._away(error)
            return Unavailable(None, away=True)

    @contextmanager
    def _waits(self) -> Generator[None]:
        self.waiting += 1
        try:
            with self._tracing.span("cacheinval.wait"):
                yield
        finally:
            self.waiting -= 1

    async def lead_flight(
        self, flight: Flight, key: bytes, headers: RawHeaders, deadline: float, wanted: Wanted
    ) -> Led:
        """Lead the flight through L2: its waiters get what L2 has, or are released."""
        try:
            led = await self.lead(key, headers, deadline, wanted)
        except BaseException:
            flight.pass_on()
            raise
        match led:
            case Answered(stored, waited):
                flight.land(stored, l2=not waited)
            case Refused():
                flight.refuse()
            case Granted(fill_lock):
                flight.grant(fill_lock)
            case Unavailable():
                pass
        return led

    # -- writing --------------------------------------------------------------------------------

    def keep(self, key: bytes, stored: StoredResponse, fill_lock: FillLock | None, *, split: bool) -> None:
        """Store a response that this replica has just filled, beside the request, and let go of its lock.

        `split` says that clients choose by their query which keys there are: those live short lives at first.
        """
        if is_local(key):
            return
        now = self._clock.now()
        held = fill_lock is not None and fill_lock.end()
        keys = dict.fromkeys((key, stored.key))
        if not self.open:
            self._own_writes.failed(keys)
            if fill_lock is not None and held:
                self._own(self._released(fill_lock))
            return
        most_ms = _PROBATION_MS if split and not self._asked_before(key) else None
        record = self._engine.store.get(key) if stored.key != key else None
        self._lives(stored.usable_until - now)
        # The term is that of its stamp only now: another may come while it is on its way.
        term = self._replica.term
        filled = Filled(key, stored, record, term, fill_lock if held else None, most_ms)
        self._own(self._own_writes.run(self._write(filled), *keys))

    def drop(self, key: bytes) -> None:
        """Let go of what is stored under a key, beside the request."""
        if is_local(key):
            return
        if self.open:
            self._own(self._own_writes.run(self._dropped(key), key))
        else:
            self._own_writes.failed([key])

    async def _dropped(self, key: bytes) -> bool:
        try:
            await self._values.drop(key)
        except TierUnavailable as error:
            self._away(error)
            return False
        return True

    def _asked_before(self, key: bytes) -> bool:
        if key in self._asked:
            self._asked.move_to_end(key)
            return True
        self._asked[key] = None
        if len(self._asked) > _MOST_ASKED:
            self._asked.popitem(last=False)
        return False

    async def _write(self, filled: Filled) -> bool:
        with self._tracing.span("cacheinval.l2.set", parent=filled.stored.trace) as span:
            try:
                outcome = await self._values.write(filled)
            except TierUnavailable as error:
                self._away(error)
                span.failed(error)
                outcome = "unavailable"
            span.note("cacheinval.outcome", outcome)
        return outcome != "unavailable"

    async def _released(self, fill_lock: FillLock) -> None:
        try:
            await fill_lock.release()
        except TierUnavailable as error:
            self._away(error)
