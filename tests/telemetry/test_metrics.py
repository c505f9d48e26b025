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
from fastapi_cacheinval.core.outcome import Outcome, Reason, Result
from fastapi_cacheinval.telemetry.instruments import Instruments
from tests.helpers.http import Shop, until
from tests.helpers.telemetry import Recorded, Watched

pytestmark = pytest.mark.anyio

# Name: kind, unit, and every attribute that a point may have.
CONTRACT: dict[str, tuple[str, str, set[str]]] = {
    "cacheinval.requests": (
        "Counter",
        "{request}",
        {"cacheinval.result", "cacheinval.tier", "cacheinval.reason", "cacheinval.detail"},
    ),
    "cacheinval.route.requests": ("Counter", "{request}", {"http.route"}),
    "cacheinval.route.hits": ("Counter", "{request}", {"http.route"}),
    "cacheinval.forwards": ("Counter", "{request}", {"cacheinval.reason"}),
    "cacheinval.forward.active": ("UpDownCounter", "{request}", set()),
    "cacheinval.forward.waiting": ("UpDownCounter", "{request}", set()),
    "cacheinval.fills": ("Counter", "{request}", {"cacheinval.outcome"}),
    "cacheinval.fill.duration": ("Histogram", "s", {"http.route"}),
    "cacheinval.refreshes": ("Counter", "{refresh}", {"cacheinval.outcome"}),
    "cacheinval.refresh.active": ("UpDownCounter", "{refresh}", set()),
    "cacheinval.refresh.max": ("UpDownCounter", "{refresh}", set()),
    "cacheinval.staleness": ("Histogram", "s", {"http.route"}),
    "cacheinval.invalidations": ("Counter", "{purge}", {"cacheinval.event", "cacheinval.soft"}),
    "cacheinval.mutations": ("Counter", "{request}", {"cacheinval.outcome"}),
    "cacheinval.resets": ("Counter", "{reset}", {"cacheinval.cause"}),
    "cacheinval.propagation.duration": ("Histogram", "s", set()),
    "cacheinval.queue.length": ("UpDownCounter", "{purge}", set()),
    "cacheinval.queue.age": ("Gauge", "s", set()),
    "cacheinval.fence.active": ("UpDownCounter", "{purge}", set()),
    "cacheinval.bus.connected": ("Gauge", "{cache}", set()),
    "cacheinval.bus.lag": ("Gauge", "{purge}", set()),
    "cacheinval.lease.remaining": ("Gauge", "s", set()),
    "cacheinval.enabled": ("Gauge", "{cache}", set()),
    "cacheinval.l1.size": ("UpDownCounter", "By", set()),
    "cacheinval.l1.max": ("UpDownCounter", "By", set()),
    "cacheinval.l1.evictions": ("Counter", "{response}", {"cacheinval.cause"}),
    "cacheinval.l2.events": ("Counter", "{event}", {"cacheinval.event"}),
    "cacheinval.l2.duration": ("Histogram", "s", {"cacheinval.operation", "cacheinval.outcome"}),
    "cacheinval.shadow": ("Counter", "{response}", {"cacheinval.outcome"}),
    "cacheinval.source.events": ("Counter", "{event}", {"cacheinval.source", "cacheinval.event"}),
    "cacheinval.source.lag": ("UpDownCounter", "{event}", {"cacheinval.source"}),
    "cacheinval.source.connected": ("Gauge", "{source}", {"cacheinval.source"}),
}
# What one process without a shared log has nothing to report of.
_SHARED = {"cacheinval.lease.remaining", "cacheinval.l2.events", "cacheinval.l2.duration"}


def kind_of(metric: Any) -> str:
    """The kind of instrument that a metric is from."""
    if type(metric.data).__name__ != "Sum":
        return type(metric.data).__name__
    return "Counter" if metric.data.is_monotonic else "UpDownCounter"


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
    # A share that is never drawn: what is counted of it is there from the start.
    shop = busy(shadow=1e-12)
    await exercise(shop)
    Instruments(shop.recorded.meter_provider.get_meter("fastapi_cacheinval")).purged(
        "applied", 1, soft=False, seconds=0.001
    )
    found = {metric.name: metric for metric in shop.recorded.metrics() if metric.name.startswith("cacheinval.")}
    assert set(found) == set(CONTRACT) - _SHARED
    for name, metric in found.items():
        kind, unit, attributes = CONTRACT[name]
        assert (kind_of(metric), metric.unit) == (kind, unit), name
        assert metric.description
        for point in metric.data.data_points:
            assert set(point.attributes) <= attributes, name
    assert {point.attributes.get("http.route") for point in shop.recorded.points("cacheinval.route.requests")} == {
        "/products/{number}",
        "/cookies",
    }


async def test_requests_are_counted_by_result_tier_and_reason_and_apart_from_that_by_route() -> None:
    """Each answer is one request: hits by tier, misses by why they went forward and were not kept; routes by hits."""
    shop = busy()
    await exercise(shop)
    names = ("cacheinval.result", "cacheinval.tier", "cacheinval.reason", "cacheinval.detail")
    assert shop.recorded.values("cacheinval.requests", *names) == {
        ("miss", None, "uri-miss", None): 2,
        ("hit", "l1", None, None): 2,
        ("miss", None, "uri-miss", "set-cookie"): 1,
        ("stale", "l1", None, None): 1,
    }
    assert shop.recorded.values("cacheinval.route.requests", "http.route") == {
        ("/products/{number}",): 5,
        ("/cookies",): 1,
    }
    assert shop.recorded.values("cacheinval.route.hits", "http.route") == {("/products/{number}",): 3}
    assert shop.recorded.values("cacheinval.forwards", "cacheinval.reason") == {("uri-miss",): 3, ("stale",): 1}
    assert shop.recorded.values("cacheinval.refreshes", "cacheinval.outcome") == {("stored",): 1}
    assert shop.recorded.values("cacheinval.fills", "cacheinval.outcome") == {("stored",): 3, ("refused",): 1}
    assert shop.recorded.values("cacheinval.fill.duration", "http.route") == {
        ("/products/{number}",): 3,
        ("/cookies",): 1,
    }
    assert shop.recorded.values("cacheinval.invalidations", "cacheinval.event", "cacheinval.soft") == {
        ("published", False): 1,
        ("published", True): 1,
    }
    # What has not happened yet is there as well, so that its first time is seen to be a rise.
    mutations = {("done",): 1, **{(other,): 0 for other in ("queued", "late", "unconfirmed", "refused")}}
    assert shop.recorded.values("cacheinval.mutations", "cacheinval.outcome") == mutations
    assert set(shop.recorded.values("cacheinval.resets", "cacheinval.cause").values()) == {0}


async def test_a_thousand_routes_do_not_overflow_a_series_limit() -> None:
    """With 1,000 cached routes every request is in a series of its own attributes, and the hit ratio is right."""
    shop = Watched()

    async def read() -> int:
        return shop.count()

    for number in range(1_000):
        shop.app.get(f"/route{number}/{{name}}", dependencies=[cached(ttl=60)])(read)
    for number in range(1_000):
        for _ in range(2):
            await shop.ask(f"/route{number}/a")
    for metric in shop.recorded.metrics():
        if metric.name.startswith("cacheinval."):
            points = metric.data.data_points
            assert not any("otel.metric.overflow" in point.attributes for point in points), metric.name
            assert len(points) <= 1_000
    assert shop.recorded.values("cacheinval.requests", "cacheinval.result") == {("miss",): 1_000, ("hit",): 1_000}
    assert len(shop.recorded.values("cacheinval.route.hits", "http.route")) == 1_000


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
    assert shop.recorded.values("cacheinval.l1.evictions", "cacheinval.cause") == {
        ("room",): 0,
        ("expired",): now.reclaimed,
    }


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
    assert shop.recorded.values("cacheinval.l1.evictions", "cacheinval.cause")[("room",)] == evicted


async def test_two_caches_of_one_process_are_added_up_and_a_gone_one_is_let_go() -> None:
    """One provider hears the sizes of both caches; being watched keeps no cache alive, and no counter falls with it."""
    recorded = Recorded()
    sizes = []
    caches = [HTTPCache(meter_provider=recorded.meter_provider) for _ in range(2)]
    for cache in caches:
        async with cache:
            sizes.append(cache.statistics().size_bytes)
        cache._core.counters.resets["new-term"] += 1
        cache._core.counters.answered(Outcome(Result.HIT, tier="l1"), "/")
    assert recorded.values("cacheinval.l1.size") == {(): sum(sizes)}
    assert recorded.values("cacheinval.resets") == {(): 2}
    del cache
    caches.pop()
    gc.collect()
    assert recorded.values("cacheinval.l1.size") == {(): sizes[0]}
    assert recorded.values("cacheinval.l1.max") == {(): caches[0].settings.l1_max_bytes}
    assert recorded.values("cacheinval.resets", "cacheinval.cause")["new-term",] == 2
    assert recorded.values("cacheinval.requests") == {(): 2}


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
    assert recorded.values("cacheinval.source.events", "cacheinval.source", "cacheinval.event") == {
        ("orders", "received"): 13,
        ("orders", "done"): 2,
        ("orders", "refused"): 1,
        ("orders", "failed"): 4,
        **{("other", event): 0 for event in ("received", "done", "refused", "failed")},
    }
    assert recorded.values("cacheinval.source.lag", "cacheinval.source") == {("orders",): 8, ("other",): 0}
    assert recorded.values("cacheinval.source.connected", "cacheinval.source") == {("orders",): 0, ("other",): 1}
