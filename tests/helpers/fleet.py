"""Replicas of one small app on the test's event loop, each with a cache of its own over the same Redis."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from fastapi import FastAPI, HTTPException

from fastapi_cacheinval import CacheMiddleware, CachePolicy, HTTPCache, cached, invalidates
from fastapi_cacheinval.core.outcome import Outcome
from fastapi_cacheinval.engine.internals import Internals
from fastapi_cacheinval.telemetry.counters import Counters
from fastapi_cacheinval.testing import FakeClock
from tests.helpers.http import Answer, Call, ask, scope_of
from tests.servers import Valkey, keys_without_a_ttl

# Real seconds after which a condition that has not come true fails its test.
PATIENCE = 20.0

SECRET = "a secret that all replicas share"
# Where no time is meant to pass: calls that are answered in time on a machine that has much else to do.
CALM: dict[str, Any] = {"staleness_bound": 6.0, "redis_timeout": 2.0}
# Where leases are meant to end.
QUICK: dict[str, Any] = {"staleness_bound": 1.5, "redis_timeout": 0.5}
# For tests in which no time has to pass: no call is given up because the machine is busy.
PATIENT: dict[str, Any] = {"staleness_bound": 30.0, "redis_timeout": 10.0}
POLICY = CachePolicy(ttl=60, jitter=0, early_refresh=0)

_OF_THE_LOG = re.compile(r"\{[^{}]+\}:(state|log|tags|acks)")


async def eventually(condition: Callable[[], object], what: str, *, seconds: float = PATIENCE) -> None:
    """Wait in real time until a condition holds; fails after the deadline."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come true within {seconds} s"
        await asyncio.sleep(0.005)


def of_age(server: Valkey) -> None:
    """Make the log's term an old one: in a young one there may be leases of the term before."""
    server.execute("HSET", "{cacheinval}:state", "opened", 1)


def nothing_is_left_for_ever(client: Any) -> None:
    """Every key has a TTL, but for the four of each log."""
    found = keys_without_a_ttl(client)
    left = [name for names in found.values() for name in names if not _OF_THE_LOG.fullmatch(name)]
    assert not left, f"these keys have no TTL: {left}"


class Heard(Counters):
    """The counters of a cache, and every outcome whole."""

    def __init__(self) -> None:
        super().__init__()
        self.outcomes: list[Outcome] = []

    def answered(self, outcome: Outcome, route: str | None) -> None:
        super().answered(outcome, route)
        self.outcomes.append(outcome)


class _HeardInternals(Internals):
    def _counters(self) -> Counters:
        return Heard()


class HeardCache(HTTPCache):
    """A cache with counters that keep every outcome whole."""

    _parts = _HeardInternals

    @property
    def heard(self) -> Heard:
        """Its counters."""
        counters = self._core.counters
        assert isinstance(counters, Heard)
        return counters


class Data:
    """What the handlers of all replicas read, and which of them ran: `calls` has the replica's number and the name."""

    def __init__(self) -> None:
        self.versions: Counter[str] = Counter()
        self.calls: list[tuple[int, str]] = []
        # Handlers that have read wait for it.
        self.gate: asyncio.Event | None = None
        self.failures = 0

    async def read(self, number: int, name: str) -> dict[str, Any]:
        """What a handler answers; it has read before it waits."""
        self.calls.append((number, name))
        version = self.versions[name]
        if self.failures:
            self.failures -= 1
            if self.gate is not None:
                await self.gate.wait()
            raise HTTPException(500, "out of order")
        if self.gate is not None:
            await self.gate.wait()
        return {"name": name, "version": version, "by": number}

    @property
    def forwards(self) -> int:
        """How often a handler ran, on whichever replica."""
        return len(self.calls)


class Node:
    """One replica: `GET /items/{name}` is cached under `item:{name}` and `items`, `PUT` purges the first."""

    def __init__(self, number: int, data: Data, cache: HeardCache, policy: CachePolicy, middleware: Any) -> None:
        self.number = number
        self.data = data
        self.cache = cache
        self.heard = cache.heard
        self.app = FastAPI()
        self.app.add_middleware(CacheMiddleware, cache=cache, **middleware)

        @self.app.get("/items/{name}", dependencies=[cached(policy, tags=["item:{name}", "items"])])
        async def read(name: str) -> Any:
            return await data.read(number, name)

        @self.app.put("/items/{name}", dependencies=[invalidates("item:{name}")])
        async def write(name: str) -> Any:
            data.versions[name] += 1
            return {"version": data.versions[name]}

    def __repr__(self) -> str:
        return f"<Node {self.number} {self.cache!r}>"

    async def ask(self, path: str = "/items/a", **more: Any) -> Answer:
        """One request."""
        return await ask(self.app, path, **more)

    def call(self, path: str = "/items/a", **more: Any) -> Call:
        """One request that is not waited for."""
        return Call(self.app, scope_of(path, **more))

    @property
    def statistics(self) -> Any:
        """What the cache reports."""
        return self.cache.statistics()

    @property
    def live(self) -> bool:
        """Whether it holds a lease."""
        return self.statistics.lease_remaining > 0

    def l2(self, event: str) -> int:
        """How often L2 did something."""
        return self.statistics.l2.get(event, 0)

    def tier(self) -> str | None:
        """Which tier the last answer that is not a plain front hit came from."""
        return self.heard.outcomes[-1].tier

    @property
    def clock(self) -> FakeClock:
        """Its clock, where the test has made it one that stands still."""
        assert isinstance(self.cache.clock, FakeClock)
        return self.cache.clock

    async def in_touch(self) -> None:
        """Wait until it holds a lease and is in touch with the log."""
        await eventually(lambda: self.live and self.statistics.connected, f"a lease of {self}")

    async def out_of_touch(self) -> None:
        """Wait until its lease has lapsed and it knows that the log is out of reach."""
        await eventually(lambda: not self.live and not self.statistics.connected, f"the end of the lease of {self}")

    async def written(self, times: int = 1) -> None:
        """Wait until it has written so many responses to L2."""
        await eventually(lambda: self.l2("write") >= times, f"a write of {self} to L2")


def made(source: Any, number: int, data: Data, policy: CachePolicy, middleware: Any, options: dict[str, Any]) -> Node:
    """One replica that has not been started."""
    make: Any = HeardCache.from_url if isinstance(source, str) else HeardCache.from_client
    return Node(number, data, make(source, **{"secret": SECRET, **CALM, **options}), policy, middleware)


@asynccontextmanager
async def fleet(
    source: Any,
    count: int = 2,
    *,
    data: Data | None = None,
    first: int = 0,
    policy: CachePolicy = POLICY,
    routes: Callable[[Node], None] | None = None,
    clocks: bool = False,
    middleware: dict[str, Any] | None = None,
    **options: Any,
) -> AsyncIterator[list[Node]]:
    """So many started replicas over a URL or a client, numbered from `first`, which share one `Data`.

    `clocks` gives each a clock that stands. `routes` adds to each replica's app what the test needs.
    """
    data = data or Data()
    nodes: list[Node] = []
    for number in range(first, first + count):
        given = {**options, "clock": FakeClock()} if clocks else options
        node = made(source, number, data, policy, middleware or {}, given)
        if routes is not None:
            routes(node)
        nodes.append(node)
    async with AsyncExitStack() as stack:
        for node in nodes:
            await node.cache.start()
            stack.push_async_callback(node.cache.stop)
        yield nodes


@asynccontextmanager
async def joining(source: Any, data: Data, number: int = 9, **options: Any) -> AsyncIterator[Node]:
    """One more replica over the same data."""
    async with fleet(source, 1, data=data, first=number, **options) as (node,):
        yield node


# -- apps of one's own --------------------------------------------------------------------------


@asynccontextmanager
async def replicas(server: Valkey, *makers: Callable[[HTTPCache], Any]) -> AsyncIterator[list[tuple[Any, HTTPCache]]]:
    """An app over a cache of its own for each maker, all over one Redis."""
    made: list[tuple[Any, HTTPCache]] = []
    async with AsyncExitStack() as stack:
        for make in makers:
            cache = HTTPCache.from_url(server.url, secret=SECRET, **CALM)
            made.append((make(cache), cache))
            await cache.start()
            stack.push_async_callback(cache.stop)
        yield made


async def filled(app: Any, cache: HTTPCache, path: str, **more: Any) -> Answer:
    """An answer that is in L2 now."""
    before = cache.statistics().l2.get("write", 0)
    answer = await ask(app, path, host="shop.test", **more)
    assert answer.cache is not None
    assert answer.cache.stored
    await eventually(lambda: cache.statistics().l2.get("write", 0) > before, "a write to L2")
    return answer


async def found(app: Any, path: str, **more: Any) -> bool:
    """Whether another replica's answer is a hit there."""
    answer = await ask(app, path, host="shop.test", **more)
    assert answer.status_code == 200
    assert answer.cache is not None
    return answer.cache.hit
