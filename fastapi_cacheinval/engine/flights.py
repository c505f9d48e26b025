"""Collapsing: one forward per key, the others wait for its result (RFC 9111 section 4, RFC 9211 `collapsed`).

The rules: if the first leader fails or is cancelled, one waiter leads; if that one fails too, all
are released at once. A result that may not be shared releases all at once and marks the key for a
while, so that an uncacheable resource never queues its clients. No wait is longer than the timeout,
and behind a leader that is older than it nobody begins to wait.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from enum import Enum

from fastapi_cacheinval.core.stored import StoredResponse
from fastapi_cacheinval.engine.clocks import within
from fastapi_cacheinval.engine.fill_lock import HIT_FOR_MISS_MS, FillLock
from fastapi_cacheinval.ports.clock import Clock

__all__ = ["Flight", "Flights", "Signal"]

_MOST_MARKS = 10_000
_MOST_LEADERS = 2
# Seconds by which an alarm that is only late comes at most.
_STOOD_STILL = 0.25


class Signal(Enum):
    """What a waiter is told where there is no response to share."""

    LEAD = "lead the next attempt"
    LOOK_AGAIN = "look again"
    GO = "go forward alone"
    FAILED = "both leaders failed: go forward alone, or use what is stale"


class Flight:
    """One key's forward and who waits for it. Its leader ends it by exactly one call.

    These are `land`, `supersede`, `refuse`, `fail` and `pass_on`.

    `began` is when its leader began to lead, and `entered` when that request came, which is how new the result is.
    `fill_lock` is the right to forward in the cluster, where it has been asked for; `landed` says that it gave a
    response that may be shared, and `l2` that this was found in L2, and not forwarded for here.
    """

    __slots__ = (
        "_flights",
        "_leaders",
        "_waiters",
        "began",
        "entered",
        "failed_status",
        "fill_lock",
        "key",
        "l2",
        "landed",
    )

    def __init__(self, flights: Flights, key: bytes, began: float, entered: float) -> None:
        self._flights = flights
        self._waiters: deque[asyncio.Future[StoredResponse | Signal]] = deque()
        self._leaders = 1
        self.failed_status: int | None = None
        self.fill_lock: FillLock | None = None
        self.l2 = False
        self.landed = False
        self.key = key
        self.began = began
        self.entered = entered

    @property
    def waiting(self) -> int:
        """How many wait."""
        return sum(not waiter.done() for waiter in self._waiters)

    def land(self, stored: StoredResponse, *, l2: bool = False) -> None:
        """The forward gave a response that may be shared; `l2` says that L2 had it at once."""
        # Before those who wait for it are run.
        self.l2 = l2
        self.landed = True
        self._end(stored)

    def supersede(self) -> None:
        """What the forward gave was purged meanwhile, or is none of the waiters' business: they look again."""
        self._let_go(FillLock.free)
        self._end(Signal.LOOK_AGAIN)

    def refuse(self) -> None:
        """The forward gave a response that may not be shared: nobody waits for this key for a while."""
        self._flights.mark(self.key)
        self._let_go(FillLock.refuse)
        self._end(Signal.GO)

    def fail(self, status: int | None = None) -> None:
        """The forward failed, with this status if any, or was cancelled: one more leads, or all go."""
        self.failed_status = status or self.failed_status
        if self._leaders >= _MOST_LEADERS:
            self._let_go(FillLock.fail)
            self._end(Signal.FAILED)
            return
        self._leaders += 1
        self.pass_on()

    def pass_on(self) -> None:
        """Let the first waiter that is still there lead; without any, the flight is over."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                self.began = self._flights.clock.now()
                waiter.set_result(Signal.LEAD)
                return
        self._let_go(FillLock.free)
        self._flights.over(self)

    def grant(self, fill_lock: FillLock) -> None:
        """The leader has the right to forward in the cluster."""
        self.fill_lock = fill_lock

    def take_fill_lock(self) -> FillLock | None:
        """The right to forward in the cluster, from now on the caller's to let go of."""
        fill_lock, self.fill_lock = self.fill_lock, None
        return fill_lock

    def _let_go(self, how: Callable[[FillLock], None]) -> None:
        fill_lock = self.take_fill_lock()
        if fill_lock is not None:
            how(fill_lock)

    def _end(self, result: StoredResponse | Signal) -> None:
        self._flights.over(self)
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(result)
        self._waiters.clear()

    async def wait(self, seconds: float) -> StoredResponse | Signal:
        """Wait for the result, for at most so many seconds of the cache's clock; then go forward alone.

        Where the process stood still meanwhile the forward did so too, and is given as long again to come to its end.
        """
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[StoredResponse | Signal] = loop.create_future()
        self._waiters.append(waiter)
        due = loop.time() + seconds
        try:
            if await within(self._flights.clock, waiter, seconds):
                return waiter.result()
            stood = loop.time() - due
            if stood > _STOOD_STILL:
                await asyncio.wait((waiter,), timeout=min(stood, seconds))
            if waiter.done():
                return waiter.result()
        except asyncio.CancelledError:
            # Named leader in the same moment as cancelled: the lead must not be lost with it.
            if waiter.done() and waiter.result() is Signal.LEAD:
                self.pass_on()
            raise
        finally:
            waiter.cancel()
        return Signal.GO


class Flights:
    """The forwards under way on one event loop, by key."""

    def __init__(self, clock: Clock, timeout: float) -> None:
        self.clock = clock
        self._timeout = timeout
        # The newest of each key, and all: behind an older one there may still be somebody who waits.
        self._flights: dict[bytes, Flight] = {}
        self._all: set[Flight] = set()
        self._marks: OrderedDict[bytes, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._all)

    @property
    def waiting(self) -> int:
        """How many requests wait, for any key."""
        return sum(flight.waiting for flight in list(self._all))

    def lead(self, key: bytes, entered: float | None = None) -> Flight | None:
        """Begin a flight for a key; None where one is under way.

        `entered` is when the request came that leads, where that is not now. It leads beside a flight that began for an
        earlier one, whose waiters go on waiting for that.
        """
        now = self.clock.now()
        before = self._flights.get(key)
        if before is not None and (entered is None or entered <= before.entered):
            return None
        flight = self._flights[key] = Flight(self, key, now, now if entered is None else entered)
        self._all.add(flight)
        return flight

    def under_way(self, key: bytes) -> Flight | None:
        """The flight to wait for; None where there is none."""
        return self._flights.get(key)

    def too_slow(self, flight: Flight) -> bool:
        """Whether a flight has lasted so long that nobody should begin to wait for it."""
        return self.clock.now() - flight.began >= self._timeout

    def hit_for_miss(self, key: bytes) -> bool:
        """Whether the key's responses could not be shared a moment ago."""
        until = self._marks.get(key)
        return until is not None and self.clock.now() < until

    def mark(self, key: bytes) -> None:
        """Let nobody wait for this key for five seconds."""
        self._marks[key] = self.clock.now() + HIT_FOR_MISS_MS / 1000
        self._marks.move_to_end(key)
        if len(self._marks) > _MOST_MARKS:
            self._marks.popitem(last=False)

    def unmark(self, key: bytes) -> None:
        """A response of this key could be shared after all."""
        self._marks.pop(key, None)

    def over(self, flight: Flight) -> None:
        """Forget a flight."""
        self._all.discard(flight)
        if self._flights.get(flight.key) is flight:
            del self._flights[flight.key]
