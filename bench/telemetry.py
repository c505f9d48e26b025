"""What a front hit costs with and without somebody who records telemetry."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, ParentBased, Sampler
from starlette.types import ASGIApp, Scope

from bench.apps import cached_app, stub_in_fastapi
from bench.report import Options, Table, reached
from bench.requests import BATCH, Subject, ask, get_scope, interleaved, medians
from fastapi_cacheinval import HTTPCache

__all__ = ["run"]

_URLS = 1_000
_MOST = 1.3
# Microseconds over a hit without an SDK.
_MOST_ADDED = {"metrics alone": 2.0, "sampled out by the caller": 5.0, "sampled out by the sampler": 5.0}
_UNSAMPLED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"


class _Nowhere(SpanExporter):
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.SUCCESS


def _providers(sampler: Sampler) -> dict[str, Any]:
    tracers = TracerProvider(sampler=sampler, shutdown_on_exit=False)
    tracers.add_span_processor(SimpleSpanProcessor(_Nowhere()))
    meters = MeterProvider(metric_readers=[InMemoryMetricReader()], shutdown_on_exit=False)
    return {"tracer_provider": tracers, "meter_provider": meters}


def _observed(providers: dict[str, Any], *, also_by_the_cache: bool) -> FastAPI:
    """The app under FastAPI's own telemetry, whose cache reports as well or does not."""
    cache = HTTPCache(**providers) if also_by_the_cache else HTTPCache()
    return cached_app(cache=cache, telemetry=providers)


async def _subjects(urls: int) -> dict[str, ASGIApp]:
    off, on = _providers(ALWAYS_OFF), _providers(ALWAYS_ON)
    apps: dict[str, ASGIApp] = {
        "no SDK": cached_app(),
        "sampler off, cache silent": _observed(off, also_by_the_cache=False),
        "sampler off": _observed(off, also_by_the_cache=True),
        "full sampling, cache silent": _observed(on, also_by_the_cache=False),
        "full sampling": _observed(on, also_by_the_cache=True),
    }
    for app in apps.values():
        for number in range(urls):
            await ask(app, get_scope(f"/items/{number}"))
        hit = await ask(app, get_scope("/items/1"))
        if not hit.field(b"cache-status").startswith(b"cacheinval; hit"):
            raise RuntimeError(f"not a hit: {hit.headers}")
        apps = {"stub, no SDK": stub_in_fastapi(hit), **apps}
    return apps


async def _table(options: Options) -> Table:
    draw = random.Random(1)  # the same draws in each run
    urls = options.pick(_URLS, 20)

    def drawn() -> Scope:
        return get_scope(f"/items/{draw.randrange(urls)}")

    apps = await _subjects(urls)
    taken = medians(
        await interleaved({name: Subject(each, drawn) for name, each in apps.items()}, options.pick(300, 5))
    )
    rows = [(name, f"{taken[name]:.2f}", "", "", "") for name in ("stub, no SDK", "no SDK")]
    for name, target in (("sampler off", None), ("full sampling", _MOST)):
        silent = taken[f"{name}, cache silent"]
        share = taken[name] / silent
        rows.append((f"{name}, cache silent", f"{silent:.2f}", "", "", ""))
        aim, verdict = ("", "") if target is None else (f"at most {target:g}×", reached(share <= target))
        rows.append((name, f"{taken[name]:.2f}", f"{share:.2f}×", aim, verdict))
    return Table(
        "Front hit with telemetry, in process",
        f"Batches of {BATCH} GETs for keys drawn from {urls:,} URLs, the apps in turn; medians of the batches. With an "
        "SDK the app is under FastAPI's own telemetry, spans and metrics, exporting to nowhere; the cache adds its "
        "attributes, link, route and metrics, or is silent, which is the same request without them.",
        ("app", "µs per request", "of the silent", "target", "reached"),
        rows,
    )


async def _added(options: Options) -> Table:
    draw = random.Random(2)  # the same draws in each run
    urls = options.pick(_URLS, 20)
    off, parents = _providers(ALWAYS_OFF), _providers(ParentBased(ALWAYS_ON))
    metrics = {"meter_provider": off["meter_provider"]}
    made: dict[str, tuple[dict[str, Any], tuple[tuple[str, str], ...]]] = {
        "no SDK": ({}, ()),
        "metrics alone": (metrics, ()),
        "sampled out by the caller": (parents, (("traceparent", _UNSAMPLED),)),
        "sampled out by the sampler": (off, ()),
    }
    subjects: dict[str, Subject] = {}
    for name, (providers, headers) in made.items():
        app = cached_app(cache=HTTPCache(**providers), telemetry={"tracing": False, "metrics": False, "logs": False})
        for number in range(urls):
            await ask(app, get_scope(f"/items/{number}"))

        def drawn(headers: tuple[tuple[str, str], ...] = headers) -> Scope:
            return get_scope(f"/items/{draw.randrange(urls)}", headers)

        subjects[name] = Subject(app, drawn)
    taken = medians(await interleaved(subjects, options.pick(300, 5)))
    rows: list[tuple[str, ...]] = []
    for name, each in taken.items():
        added, most = each - taken["no SDK"], _MOST_ADDED.get(name)
        aim, verdict = ("", "") if most is None else (f"at most {most:g} µs", reached(added <= most))
        rows.append((name, f"{each:.2f}", f"+{added:.2f}", aim, verdict))
    return Table(
        "What the cache's own telemetry adds to a front hit",
        f"As above, without FastAPI's telemetry: nothing but the cache reports. {urls:,} URLs.",
        ("app", "µs per request", "added", "target", "reached"),
        rows,
    )


def run(options: Options) -> list[Table]:
    """The tables."""
    return [asyncio.run(_table(options)), asyncio.run(_added(options))]
