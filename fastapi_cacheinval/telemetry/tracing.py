"""Tracing through the OpenTelemetry API: spans, and attributes and links on the spans of others."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from opentelemetry import context as contexts
from opentelemetry import propagate, trace
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, Tracer

from fastapi_cacheinval.grammar.fields import RawHeaders
from fastapi_cacheinval.ports.tracing import Carrier, OpenSpan, Seen
from fastapi_cacheinval.telemetry.context import carrier_of, context_of, contexts_of_carrier, traceparent_of
from fastapi_cacheinval.telemetry.seen import (
    LOOKUP,
    NOTHING_ABOVE,
    Alone,
    Nothing,
    Served,
    Unsampled,
    below_caller,
    failed,
)

__all__ = ["Spans"]


class _Open:
    """A span of ours that records."""

    __slots__ = ("_span",)

    def __init__(self, span: Span) -> None:
        self._span = span

    @property
    def trace(self) -> str:
        return traceparent_of(self._span.get_span_context())

    @property
    def carrier(self) -> Carrier:
        return carrier_of(self._span.get_span_context())

    def note(self, name: str, value: str | int) -> None:
        self._span.set_attribute(name, value)

    def failed(self, error: Exception) -> None:
        failed(self._span, error)


_NOTHING = Nothing()
_NO_SPAN: AbstractContextManager[OpenSpan] = nullcontext(_NOTHING)


class Spans:
    """Tracing over the API's tracer; without one it is off."""

    def __init__(self) -> None:
        self._tracer: Tracer | None = None
        # Whose the tracer is.
        self.provider: object = None
        self._fields: frozenset[bytes] = frozenset()
        self.on = False

    def report_to(self, tracer: Tracer, provider: object) -> None:
        """Record from now on, with the tracer of a provider."""
        self._tracer, self.provider = tracer, provider
        self._fields = frozenset(name.lower().encode("latin-1") for name in propagate.get_global_textmap().fields)
        self.on = True

    def enter(self, headers: RawHeaders) -> Seen:
        if self._tracer is None:
            return _NOTHING
        span = trace.get_current_span()
        if span is trace.INVALID_SPAN:
            return Alone(self._tracer, self._fields, headers)
        if span.is_recording():
            return Served(span)
        if span.get_span_context().is_valid:
            return Unsampled(span)
        return Alone(self._tracer, self._fields, headers)

    # Of the most frequent request of all, most of which are not sampled: one function, and nothing is made before that
    # is known.
    def hit(self, headers: RawHeaders) -> Seen | None:
        tracer = self._tracer
        if tracer is None:
            return None
        current = contexts.get_current()
        if current:
            span = trace.get_current_span(current)
            if span.is_recording():
                return Served(span)
            if span.get_span_context().is_valid:
                return None
        fields = self._fields
        for name, _ in headers:
            if name in fields:
                return below_caller(tracer, fields, headers)
        span = tracer.start_span(LOOKUP, NOTHING_ABOVE)
        return Alone(tracer, fields, headers, span) if span.is_recording() else None

    def span(
        self, name: str, *, parent: str = "", link: str = "", root: bool = False, links: Carrier = ()
    ) -> AbstractContextManager[OpenSpan]:
        tracer, above = self._tracer, contexts.get_current()
        if tracer is None:
            return _NO_SPAN
        linked = tuple(map(Link, contexts_of_carrier(links)))
        if link:
            cause = context_of(link)
            above, linked = contexts.Context(), () if cause is None else (Link(cause),)
        elif parent:
            filled = context_of(parent)
            if filled is None:
                return _NO_SPAN
            above = trace.set_span_in_context(NonRecordingSpan(filled))
        else:
            current = trace.get_current_span(above)
            if not current.is_recording() and not (root and _may_begin(current.get_span_context())):
                return _NO_SPAN
        span = tracer.start_span(name, above, links=linked)
        return _around(span, above) if span.is_recording() else _NO_SPAN

    def point(self, name: str, carrier: Carrier | None, **attributes: str | int | bool) -> None:
        causes = contexts_of_carrier(carrier) if self._tracer is not None and carrier else ()
        if self._tracer is not None and (causes or carrier is None):
            dotted = {f"cacheinval.{key}": value for key, value in attributes.items()}
            self._tracer.start_span(name, contexts.Context(), attributes=dotted, links=[*map(Link, causes)]).end()


def _may_begin(above: SpanContext) -> bool:
    # What a caller elsewhere records goes on here; what is not sampled does not begin again.
    return not above.is_valid or (above.is_remote and above.trace_flags.sampled)


@contextmanager
def _around(span: Span, above: contexts.Context) -> Generator[OpenSpan]:
    token = contexts.attach(trace.set_span_in_context(span, above))
    try:
        yield _Open(span)
    except Exception as error:
        failed(span, error)
        raise
    finally:
        contexts.detach(token)
        span.end()
