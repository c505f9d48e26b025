"""What an OpenTelemetry SDK has recorded in memory, and apps that report to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.metrics.view import ExplicitBucketHistogramAggregation, View
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased, Sampler
from opentelemetry.trace import SpanKind

from tests.helpers.http import Shop, until
from tests.helpers.versions import ADVISES_BUCKETS

__all__ = ["Recorded", "Watched", "attributes_of", "identity_of", "linked_to", "same_trace"]


# As an operator would write it for an API in which histograms cannot name their buckets.
_VIEWS = (
    []
    if ADVISES_BUCKETS
    else [
        View(
            instrument_name="cacheinval.l2.duration",
            aggregation=ExplicitBucketHistogramAggregation(
                boundaries=(0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0)
            ),
        )
    ]
)


class Recorded:
    """An SDK that keeps everything in memory."""

    def __init__(self, sampler: Sampler | None = None) -> None:
        self._exporter = InMemorySpanExporter()
        self._reader = InMemoryMetricReader()
        self.tracer_provider = TracerProvider(sampler=sampler or ParentBased(ALWAYS_ON))
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.meter_provider = MeterProvider(metric_readers=[self._reader], views=_VIEWS)

    @property
    def providers(self) -> dict[str, Any]:
        """As options of a cache, of FastAPI's telemetry and of the instrumentations."""
        return {"tracer_provider": self.tracer_provider, "meter_provider": self.meter_provider}

    def spans(self, name: str | None = None) -> list[ReadableSpan]:
        """The spans that have ended, in that order."""
        return [span for span in self._exporter.get_finished_spans() if name is None or span.name == name]

    def one(self, name: str) -> ReadableSpan:
        """The only span of a name."""
        found = self.spans(name)
        assert len(found) == 1, [span.name for span in self.spans()]
        return found[0]

    def server(self) -> ReadableSpan:
        """The last span of a server's kind."""
        return [span for span in self.spans() if span.kind is SpanKind.SERVER][-1]

    def forget(self) -> None:
        """Begin anew with spans."""
        self._exporter.clear()

    def metrics(self) -> Iterator[Any]:
        """Every metric that is collected now."""
        data = self._reader.get_metrics_data()
        for resource in [] if data is None else data.resource_metrics:
            for scope in resource.scope_metrics:
                yield from scope.metrics

    def points(self, name: str) -> list[Any]:
        """The points of one metric."""
        return [point for metric in self.metrics() if metric.name == name for point in metric.data.data_points]

    def values(self, name: str, *attributes: str) -> dict[tuple[Any, ...], Any]:
        """The values of one metric's points, by some of their attributes; of histograms the counts."""
        found: dict[tuple[Any, ...], Any] = {}
        for point in self.points(name):
            key = tuple(point.attributes.get(attribute) for attribute in attributes)
            found[key] = found.get(key, 0) + getattr(point, "value", getattr(point, "count", None))
        return found


class Watched(Shop):
    """A shop whose app and cache report to an SDK of its own; `native` is FastAPI's own telemetry."""

    def __init__(
        self,
        sampler: Sampler | None = None,
        *,
        native: bool = True,
        fastapi: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        self.recorded = Recorded(sampler)
        own = {"telemetry": self.recorded.providers} if native else {"telemetry": {"tracing": False, "metrics": False}}
        super().__init__(fastapi={**own, **(fastapi or {})}, **self.recorded.providers, **options)

    async def span_of_refresh(self) -> ReadableSpan:
        """The span of the only refresh, once that has ended."""
        await until(lambda: self.recorded.spans("cacheinval.refresh"), "the refresh's span")
        return self.recorded.one("cacheinval.refresh")


def attributes_of(span: ReadableSpan) -> dict[str, Any]:
    """What the cache says of a span, by the names without their prefix."""
    return {
        name.removeprefix("cacheinval."): value
        for name, value in (span.attributes or {}).items()
        if name.startswith("cacheinval.")
    }


def identity_of(span: ReadableSpan) -> tuple[int, int]:
    """Trace and span, as links name them."""
    assert span.context is not None
    return span.context.trace_id, span.context.span_id


def linked_to(span: ReadableSpan) -> list[tuple[int, int]]:
    """Trace and span of each link."""
    return [(link.context.trace_id, link.context.span_id) for link in span.links]


def same_trace(*spans: ReadableSpan) -> bool:
    """Whether all are of one trace."""
    return len({identity_of(span)[0] for span in spans}) == 1
