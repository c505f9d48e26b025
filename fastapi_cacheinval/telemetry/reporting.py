"""Joining a cache to the telemetry that there is."""

from __future__ import annotations

import logging
from collections.abc import Callable

from opentelemetry.metrics import MeterProvider, get_meter_provider
from opentelemetry.trace import TracerProvider, get_tracer_provider

from fastapi_cacheinval.telemetry.counters import Counters
from fastapi_cacheinval.telemetry.gauges import Reports, unwatch, watch
from fastapi_cacheinval.telemetry.instruments import Instruments
from fastapi_cacheinval.telemetry.providers import find_meter, find_tracer, is_provider
from fastapi_cacheinval.telemetry.tracing import Spans

__all__ = ["join"]

logger = logging.getLogger("fastapi_cacheinval.telemetry")


def join(
    cache: Reports,
    tracing: Spans,
    counters: Counters,
    *,
    tracer_provider: TracerProvider | None,
    meter_provider: MeterProvider | None,
) -> bool:
    """Report to the providers given, or to those that the process has now; whether anybody records.

    One that has taken another's place is followed, as where each test sets its own. One that is set later is not seen
    before the next start: `counters` look for it on forwards, and it is said once.
    """
    tracers = tracer_provider or get_tracer_provider()
    tracer = find_tracer(tracers) if tracers is not tracing.provider else None
    if tracer is not None:
        tracing.report_to(tracer, tracers)
    meters = meter_provider or get_meter_provider()
    meter = find_meter(meters) if meters is not counters.provider else None
    if meter is not None:
        if counters.provider is not None:
            unwatch(counters.provider, cache)
        counters.report_to(instruments := Instruments(meter), meters)
        watch(meters, meter, cache, instruments.requests)
    counters.look = _look(tracing, counters, tracer_provider, meter_provider)
    return tracing.on or counters.also is not None


def _look(
    tracing: Spans, counters: Counters, tracer_provider: TracerProvider | None, meter_provider: MeterProvider | None
) -> Callable[[], None]:
    """What says once that a provider of the process has come too late, or has taken the place of one."""
    looked_at: tuple[object, object] = (None, None)

    def look() -> None:
        nonlocal looked_at
        tracers = tracer_provider or get_tracer_provider()
        meters = meter_provider or get_meter_provider()
        if tracers is looked_at[0] and meters is looked_at[1]:
            return
        looked_at = (tracers, meters)
        late = [
            name
            for name, found, known in (
                ("TracerProvider", tracers, tracing.provider),
                ("MeterProvider", meters, counters.provider),
            )
            if found is not known and is_provider(found)
        ]
        if late:
            counters.look = None
            logger.warning(
                "The %s of OpenTelemetry was set after the cache had started: the cache reports nothing to it. Set it "
                "before the app starts, or in the app's own lifespan, or say HTTPCache(tracer_provider=..., "
                "meter_provider=...).",
                " and the ".join(late),
            )

    return look
