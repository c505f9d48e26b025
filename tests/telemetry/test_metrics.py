"""The metrics: names, units, attributes, and that they are right."""

from __future__ import annotations

import asyncio
import gc
import socket
import threading
from typing import Any, Self

import pytest
from fastapi import Response
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from fastapi_cacheinval import CachePolicy, HTTPCache, SourceState, cached, invalidates
from fastapi_cacheinval.core.decide import Reason
from fastapi_cacheinval.core.outcome import Outcome, Result
from fastapi_cacheinval.telemetry.instruments import Instruments
from tests.helpers.http import Shop, until
from tests.helpers.telemetry import Recorded, Watched

pytestmark = pytest.mark.anyio

# Name: kind, unit, and every attribute that a point may have.
CONTRACT: dict[str, tuple[str, str, set[str]]] = {
    "cacheinval.requests": (
        "Sum",
        "{request}",
        {"cacheinval.result", "cacheinval.tier", "cacheinval.reason", "http.route"},
    ),
    "cacheinval.forwards": ("Sum", "{request}", {"cacheinval.reason", "http.route"}),
    "cacheinval.refreshes": ("Sum", "{refresh}", {"outcome"}),
    "cacheinval.fill.duration": ("Histogram", "s", {"http.route", "outcome"}),
    "cacheinval.staleness": ("Histogram", "s", {"http.route"}),
    "cacheinval.invalidations": ("Sum", "{purge}", {"event", "soft"}),
    "cacheinval.propagation.duration": ("Histogram", "s", set()),
    "cacheinval.queue.length": ("Gauge", "{purge}", set()),
    "cacheinval.bus.lag": ("Gauge", "{purge}", set()),
    "cacheinval.lease.remaining": ("Gauge", "s", set()),
    "cacheinval.l1.size": ("Gauge", "By", set()),
    "cacheinval.l1.evictions": ("Sum", "{response}", {"cause"}),
    "cacheinval.source.events": ("Sum", "{event}", {"cacheinval.source", "event"}),
    "cacheinval.source.lag": ("Gauge", "{event}", {"cacheinval.source"}),
    "cacheinval.source.connected": ("Gauge", "{source}", {"cacheinval.source"}),
}


class Attached:
    """Something that is attached and tells how it stands."""

    def __init__(self, name: str = "orders", **state: Any) -> None:
        self.name = name
        self.told = SourceState(**state)

    def state(self) -> SourceState:
        """How it stands."""
        return self.told

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None: ...


def busy(**options: Any) -> Watched:
    """An app with a route of each kind."""
    shop = Watched(**options)
    shop.cache.attach(Attached())
    policy = CachePolicy(ttl=60, stale_while_revalidate=600)

    @shop.app.get("/products/{number}", dependencies=[cached(policy, tags=["product:{number}"])])
    async def read(number: int) -> int:
        return shop.count()

    @shop.app.get("/cookies", dependencies=[cached(policy)])
    async def cookie() -> Response:
        return Response(headers={"set-cookie": "a=b"})

    @shop.app.put("/products/{number}", dependencies=[invalidates("product:{number}")])
    async def write(number: int) -> None: ...

    return shop


async def exercise(shop: Watched) -> None:
    """One of everything that one process can do."""
    for path in ("/products/1", "/products/1", "/cookies", "/products/1?q=another"):
        await shop.ask(path)
    await shop.ask("/products/1", method="PUT")
    await shop.ask("/products/1")
    shop.clock.tick(75)
    await shop.ask("/products/1")
    await shop.refreshed()
    await shop.cache.invalidate("product:1", soft=True)


async def test_every_metric_has_its_name_kind_unit_and_attributes() -> None:
    """All of the contract is there, and nothing beside it: no key, tag or path can become an attribute."""
    shop = busy()
    await exercise(shop)
    Instruments(shop.recorded.meter_provider.get_meter("fastapi_cacheinval")).purged(
        "applied", 1, soft=False, seconds=0.001
    )
    found = {metric.name: metric for metric in shop.recorded.metrics() if metric.name.startswith("cacheinval.")}
    # A log in one process has no lease.
    assert set(found) == set(CONTRACT) - {"cacheinval.lease.remaining"}
    for name, metric in found.items():
        kind, unit, attributes = CONTRACT[name]
        assert (type(metric.data).__name__, metric.unit) == (kind, unit), name
        assert metric.description
        for point in metric.data.data_points:
            assert set(point.attributes) <= attributes, name
    assert {point.attributes.get("http.route") for point in shop.recorded.points("cacheinval.requests")} == {
        "/products/{number}",
        "/cookies",
    }


async def test_requests_are_counted_by_result_tier_reason_and_route() -> None:
    """Each answer is one request: hits by tier, misses by why they went forward or were not kept."""
    shop = busy()
    await exercise(shop)
    assert shop.recorded.values(
        "cacheinval.requests", "cacheinval.result", "cacheinval.tier", "cacheinval.reason", "http.route"
    ) == {
        ("miss", None, "uri-miss", "/products/{number}"): 2,
        ("hit", "l1", None, "/products/{number}"): 2,
        ("miss", None, "set-cookie", "/cookies"): 1,
        ("stale", "l1", None, "/products/{number}"): 1,
    }
    assert shop.recorded.values("cacheinval.forwards", "cacheinval.reason", "http.route") == {
        ("uri-miss", "/products/{number}"): 2,
        ("uri-miss", "/cookies"): 1,
        ("stale", "/products/{number}"): 1,
    }
    assert shop.recorded.values("cacheinval.refreshes", "outcome") == {("stored",): 1}
    assert shop.recorded.values("cacheinval.fill.duration", "http.route", "outcome") == {
        ("/products/{number}", "stored"): 3,
        ("/cookies", "refused"): 1,
    }
    assert shop.recorded.values("cacheinval.invalidations", "event", "soft") == {
        ("published", False): 1,
        ("published", True): 1,
    }


async def test_staleness_is_how_long_a_response_had_been_stale() -> None:
    """The histogram has the seconds past the lifetime; a fresh hit is not in it."""
    shop = busy()
    await exercise(shop)
    (point,) = shop.recorded.points("cacheinval.staleness")
    assert (point.count, point.sum) == (1, pytest.approx(15))


async def test_collapsed_requests_are_counted_each() -> None:
    """One forward and nineteen collapsed requests are just that."""
    shop = Watched()
    gate = asyncio.Event()

    @shop.app.get("/", dependencies=[cached(ttl=60)])
    async def read() -> int:
        await gate.wait()
        return shop.count()

    calls = [shop.call() for _ in range(20)]
    await until(lambda: shop.cache.statistics().forwards_under_way)
    gate.set()
    await asyncio.gather(*(call.answer() for call in calls))
    assert shop.recorded.values("cacheinval.requests", "cacheinval.result") == {("miss",): 1, ("collapsed",): 19}
    assert sum(shop.recorded.values("cacheinval.forwards").values()) == 1


def test_counts_are_right_from_many_threads() -> None:
    """Eight threads that count ten thousand each come to eighty thousand."""
    recorded = Recorded()
    cache = HTTPCache(meter_provider=recorded.meter_provider)
    assert cache._core.observe()
    outcome = Outcome(Result.HIT, tier="l1", age=1.0, ttl=1)

    def count() -> None:
        for _ in range(10_000):
            cache._core.counters.answered(outcome, "/")
            cache._core.counters.forwarded(Reason.STALE, None)

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert recorded.values("cacheinval.requests") == {(): 80_000}
    assert recorded.values("cacheinval.forwards") == {(): 80_000}


async def test_gauges_read_memory_and_do_no_io(monkeypatch: pytest.MonkeyPatch) -> None:
    """Collecting opens no file and touches no socket; the values are those of `statistics()`."""
    shop = busy()
    await exercise(shop)

    def forbidden(*_: Any, **__: Any) -> None:
        raise AssertionError("a gauge did I/O")

    for name in ("send", "sendall", "connect", "recv"):
        monkeypatch.setattr(socket.socket, name, forbidden, raising=False)
    monkeypatch.setattr("builtins.open", forbidden)
    now = shop.cache.statistics()
    assert shop.recorded.values("cacheinval.l1.size") == {(): now.size_bytes}
    assert shop.recorded.values("cacheinval.queue.length") == {(): 0}
    assert shop.recorded.values("cacheinval.bus.lag") == {(): 0}
    assert shop.recorded.values("cacheinval.l1.evictions", "cause") == {("room",): 0, ("expired",): now.reclaimed}


async def test_evictions_are_counted_by_cause() -> None:
    """Responses let go of for room are counted, as `statistics()` has them."""
    shop = Watched(l1_max_bytes=64 * 1024)

    @shop.app.get("/{number}", dependencies=[cached(ttl=60)])
    async def read(number: int) -> Response:
        return Response(b"x" * 8000)

    for number in range(20):
        await shop.ask(f"/{number}")
    evicted = shop.cache.statistics().evicted
    assert evicted > 5
    assert shop.recorded.values("cacheinval.l1.evictions", "cause")[("room",)] == evicted


async def test_two_caches_of_one_process_are_added_up_and_a_gone_one_is_let_go() -> None:
    """One provider hears the sizes of both caches; being watched keeps no cache alive."""
    recorded = Recorded()
    sizes = []
    caches = [HTTPCache(meter_provider=recorded.meter_provider) for _ in range(2)]
    for cache in caches:
        async with cache:
            sizes.append(cache.statistics().size_bytes)
    assert recorded.values("cacheinval.l1.size") == {(): sum(sizes)}
    del cache
    caches.pop()
    gc.collect()
    assert recorded.values("cacheinval.l1.size") == {(): sizes[0]}


async def test_no_sdk_means_no_instruments() -> None:
    """Without a provider nothing is made to report to, and the common hit is answered on the spot."""
    shop = Shop()

    @shop.app.get("/", dependencies=[cached(ttl=60)])
    async def read() -> int:
        return shop.count()

    for _ in range(3):
        await shop.ask()
    assert shop.cache._core.counters.also is None
    assert not shop.cache._core.tracing.on
    assert shop.cache._core.counters.hits == 2


async def test_a_provider_that_is_set_while_the_app_starts_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process's provider is asked for once the app has started, so its own lifespan may set it."""
    from collections.abc import AsyncIterator
    from contextlib import asynccontextmanager

    from fastapi import FastAPI
    from opentelemetry.metrics import _internal as internal

    from tests.helpers.http import lifespan_of

    reader = InMemoryMetricReader()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        monkeypatch.setattr(internal, "_METER_PROVIDER", MeterProvider(metric_readers=[reader]))
        yield

    shop = Shop(fastapi={"lifespan": lifespan})

    @shop.app.get("/", dependencies=[cached(ttl=60)])
    async def read() -> int:
        return shop.count()

    async with lifespan_of(shop.app):
        await shop.ask()
    data: Any = reader.get_metrics_data()
    names = {
        metric.name
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }
    assert "cacheinval.requests" in names


def test_sources_are_told_by_name_and_added_up_over_caches() -> None:
    """Counts and lags of sources of one name are summed, and it is in touch where all are."""
    recorded = Recorded()
    caches = [HTTPCache(**recorded.providers) for _ in range(2)]
    caches[0].attach(Attached(connected=True, received=3, done=2, refused=1, failures=4, waiting=1, lag=5))
    caches[1].attach(Attached(connected=False, received=10, waiting=2))
    caches[1].attach(Attached("other", connected=True))
    for cache in caches:
        cache._core.observe()
    assert recorded.values("cacheinval.source.events", "cacheinval.source", "event") == {
        ("orders", "received"): 13,
        ("orders", "done"): 2,
        ("orders", "refused"): 1,
        ("orders", "failed"): 4,
        **{("other", event): 0 for event in ("received", "done", "refused", "failed")},
    }
    assert recorded.values("cacheinval.source.lag", "cacheinval.source") == {("orders",): 8, ("other",): 0}
    assert recorded.values("cacheinval.source.connected", "cacheinval.source") == {("orders",): 0, ("other",): 1}
