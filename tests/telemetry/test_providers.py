"""Providers that come late, are replaced or are closed, and what of a caller's trace context is kept."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from fastapi import FastAPI
from opentelemetry import trace
from opentelemetry.metrics import _internal as metrics_of_process
from opentelemetry.trace import SpanContext, TraceFlags, TraceState

from fastapi_cacheinval import CachePolicy, cached, invalidates
from fastapi_cacheinval.telemetry.context import carried, carrier_of
from tests.helpers.fleet import eventually, fleet
from tests.helpers.http import Shop, ask, lifespan_of, until
from tests.helpers.telemetry import Recorded, Watched, attributes_of
from tests.servers import Valkey

pytestmark = pytest.mark.anyio

POLICY = CachePolicy(ttl=60, stale_while_revalidate=600)


def of_process(monkeypatch: pytest.MonkeyPatch, recorded: Recorded) -> None:
    """Make the providers those of the process, as an SDK's set-up does."""
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", recorded.tracer_provider)
    monkeypatch.setattr(metrics_of_process, "_METER_PROVIDER", recorded.meter_provider)


def late_warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was said of providers."""
    return [each.getMessage() for each in caplog.records if each.name == "fastapi_cacheinval.telemetry"]


async def test_a_provider_of_the_process_that_is_replaced_is_followed_at_the_next_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An app of a module whose tests each set providers of their own reports to those of the test that runs."""
    shop = Shop(fastapi={"telemetry": {"tracing": False, "metrics": False}})

    @shop.app.get("/{name}", dependencies=[cached(POLICY)])
    async def read(name: str) -> int:
        return shop.count()

    each = [Recorded(), Recorded()]
    for number, recorded in enumerate(each):
        of_process(monkeypatch, recorded)
        async with lifespan_of(shop.app):
            for _ in range(2):
                await shop.ask(f"/{number}")
    for recorded in each:
        assert [attributes_of(span)["result"] for span in recorded.spans("cacheinval.lookup")] == ["miss", "hit"]
        assert recorded.values("cacheinval.requests", "cacheinval.result") == {("miss",): 1, ("hit",): 1}
    assert len(each[0].points("cacheinval.l1.size")) == 0
    assert len(each[1].points("cacheinval.l1.size")) == 1


async def test_providers_that_come_after_the_start_are_a_warning_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The next forward says what to do, once; with providers of the cache's own nothing is said."""
    shop, own = Shop(fastapi={"telemetry": {"tracing": False, "metrics": False}}), Watched(native=False)
    for each in (shop, own):

        @each.app.get("/{name}", dependencies=[cached(POLICY)])
        async def read(name: str) -> int:
            return 1

        await each.ask("/a")
    assert late_warnings(caplog) == []
    of_process(monkeypatch, Recorded())
    await own.ask("/b")
    assert late_warnings(caplog) == []
    for path in ("/b", "/c"):
        await shop.ask(path)
    (said,) = late_warnings(caplog)
    assert "TracerProvider and the MeterProvider" in said
    assert "HTTPCache(tracer_provider=" in said


async def test_providers_that_the_apps_lifespan_closes_have_heard_all(redis_server: Valkey) -> None:
    """The cache ends what it does in the background before the app's own shutdown: its last spans are exported."""
    recorded = Recorded()
    gate = asyncio.Event()
    seen: list[list[str]] = []

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        seen.append([span.name for span in recorded.spans()])
        recorded.tracer_provider.shutdown()

    shop = Shop(fastapi={"lifespan": lifespan, "telemetry": {"tracing": False, "metrics": False}}, **recorded.providers)

    @shop.app.get("/", dependencies=[cached(POLICY)])
    async def read() -> int:
        if shop.count() > 1:
            await gate.wait()
        return 1

    @shop.app.put("/", dependencies=[invalidates("a")])
    async def write() -> None: ...

    async with lifespan_of(shop.app):
        await shop.ask()
        shop.clock.tick(61)
        await shop.ask()
        await until(lambda: shop.calls == 2)
    (names,) = seen
    assert "cacheinval.refresh" in names
    assert attributes_of(recorded.one("cacheinval.refresh")) == {"outcome": "cancelled"}


async def test_what_an_app_purges_in_its_shutdown_is_written(redis_server: Valkey) -> None:
    """Winding down ends no purges: one that the app makes after it has its number."""
    from fastapi_cacheinval import CacheMiddleware, HTTPCache

    purged: list[int] = []
    cache = HTTPCache.from_url(redis_server.url, secret="a secret that all replicas share")

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        purged.append((await cache.invalidate("a")).seq)

    app = FastAPI(lifespan=lifespan)
    app.add_middleware(CacheMiddleware, cache=cache)
    async with lifespan_of(app):
        await ask(app, "/")
    assert len(purged) == 1


async def test_purges_that_are_lost_at_the_end_are_told_before_the_apps_shutdown(
    redis_server: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    """The record of what could not be written comes while the app still has its log, and comes once."""
    at_shutdown: list[int] = []

    def lost() -> list[logging.LogRecord]:
        return [each for each in caplog.records if "could not be written to the log" in each.getMessage()]

    async with fleet(redis_server.url, 1, staleness_bound=0.6) as (node,):
        redis_server.kill()
        await node.out_of_touch()
        await node.ask(method="PUT")
        await node.cache._core.lifecycle.wind_down()
        at_shutdown.append(len(lost()))
        await eventually(lambda: node.statistics.queue_length, "what is queued")
        await node.cache.stop()
    assert at_shutdown == [1]
    assert len(lost()) == 1


def test_a_long_tracestate_does_not_travel() -> None:
    """Of `tracestate`, which a caller chooses and every line of the log would keep, 512 characters at most travel."""
    short, long = "a=" + "b" * 100, ",".join(f"k{number}=" + "v" * 200 for number in range(4))
    for state, travels in ((short, True), (long, False)):
        context = SpanContext(
            1, 2, is_remote=False, trace_flags=TraceFlags(1), trace_state=TraceState.from_header([state])
        )
        assert (("tracestate", state) in carrier_of(context)) is travels
        fields = {"traceparent": f"00-{1:032x}-{2:016x}-01", "tracestate": state}
        assert (("tracestate", state) in carried([fields])) is travels
        assert carrier_of(context)[0] == carried([fields])[0] == ("traceparent", fields["traceparent"])
