"""Spans and metrics as lines of text, with the SDK."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, MetricsData, PeriodicExportingMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

_TOLD = ("cacheinval.", "http.response.status_code")


def set_providers(signals: Iterable[str]) -> None:
    """Print these signals of the process from now on."""
    if "TRACES" in signals:
        tracers = TracerProvider()
        tracers.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(out=sys.stdout, formatter=line_of_span)))
        trace.set_tracer_provider(tracers)
    if "METRICS" in signals:
        exporter = ConsoleMetricExporter(sys.stdout, formatter=lines_of_metrics)
        metrics.set_meter_provider(MeterProvider([PeriodicExportingMetricReader(exporter)]))


def line_of_span(span: ReadableSpan) -> str:
    """Trace and span, the parent, the name, milliseconds, what the cache says, and links."""
    context, parent = span.context, span.parent
    milliseconds = ((span.end_time or 0) - (span.start_time or 0)) / 1_000_000
    attributes: dict[str, Any] = dict(span.attributes or {})
    told = [f"{name}={value}" for name, value in attributes.items() if name.startswith(_TOLD)]
    links = [f"link={_short(link.context)}" for link in span.links]
    where = _short(context) + ("" if parent is None else f" below {parent.span_id:016x}"[:15])
    return "  ".join([f"{where:32}", f"{span.name:26}", f"{milliseconds:7.2f} ms", *sorted(told), *links]) + "\n"


def _short(context: Any) -> str:
    return f"{context.trace_id:032x}"[:8] + "/" + f"{context.span_id:016x}"[:8]


def lines_of_metrics(data: MetricsData) -> str:
    """The cache's metrics, a line for each point."""
    lines = [
        f"{metric.name} {dict(point.attributes or {})} {getattr(point, 'value', getattr(point, 'count', None))}\n"
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name.startswith("cacheinval.")
        for point in metric.data.data_points
    ]
    return "".join(lines)
