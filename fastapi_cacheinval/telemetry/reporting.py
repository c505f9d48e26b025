"""Joining a cache to the telemetry that there is."""

from __future__ import annotations

from opentelemetry.metrics import MeterProvider, get_meter_provider
from opentelemetry.trace import TracerProvider

from fastapi_cacheinval.telemetry.counters import Counters
from fastapi_cacheinval.telemetry.gauges import Reports, watch
from fastapi_cacheinval.telemetry.instruments import Instruments
from fastapi_cacheinval.telemetry.providers import find_meter, find_tracer
from fastapi_cacheinval.telemetry.tracing import Spans

__all__ = ["join"]


def join(
    cache: Reports,
    tracing: Spans,
    counters: Counters,
    *,
    tracer_provider: TracerProvider | None,
    meter_provider: MeterProvider | None,
) -> bool:
    """Report to the providers given, or to the process's, where that is not done yet; whether anybody records."""
    if not tracing.on:
        tracer = find_tracer(tracer_provider)
        if tracer is not None:
            tracing.report_to(tracer)
    if counters.also is None:
        meter = find_meter(meter_provider)
        if meter is not None:
            counters.also = instruments = Instruments(meter)
            counters.requests = instruments.requests
            watch(meter_provider or get_meter_provider(), meter, cache, instruments.requests)
    return tracing.on or counters.also is not None
