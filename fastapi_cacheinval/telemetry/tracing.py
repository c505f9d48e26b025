"""Tracing through the OpenTelemetry API: spans, and attributes and links on the spans of others."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import Token
from time import time_ns

from opentelemetry import context as contexts
from opentelemetry import propagate, trace
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, StatusCode, Tracer

from fastapi_cacheinval.core.outcome import Outcome
from fastapi_cacheinval.grammar.fields import RawHeaders
from fastapi_cacheinval.ports.tracing import Carrier, OpenSpan, Seen
from fastapi_cacheinval.telemetry.attributes import AGE, DETAIL, REASON, RESULT, ROUTE, TIER
from fastapi_cacheinval.telemetry.context import carrier_of, context_of, contexts_of_carrier, traceparent_of

__all__ = ["Spans"]


def _described(span: Span, outcome: Outcome, filled_by: str) -> None:
    attributes: dict[str, str | int] = {RESULT: outcome.result.value}
    if outcome.tier is not None:
        attributes[TIER] = outcome.tier
    if outcome.age is not None:
        attributes[AGE] = max(0, int(outcome.age))
    if outcome.reason is not None:
        attributes[REASON] = outcome.reason.value
    if outcome.detail is not None:
        attributes[DETAIL] = outcome.detail
    span.set_attributes(attributes)
    fill = context_of(filled_by) if filled_by else None
    if fill is not None:
        span.add_link(fill)


def _failed(span: Span, error: Exception) -> None:
    # Its type only: messages name tags.
    span.set_attribute("error.type", type(error).__qualname__)
    span.set_status(StatusCode.ERROR)


def _link(one: Span, other: Span) -> None:
    """Lead from each of two traces of one request to the other."""
    here, there = one.get_span_context(), other.get_span_context()
    if there.is_valid and there.trace_id != here.trace_id:
        one.add_link(there)
        other.add_link(here)


@contextmanager
def _made_current(span: Span) -> Generator[None]:
    token = contexts.attach(trace.set_span_in_context(span))
    try:
        yield
    finally:
        contexts.detach(token)


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
        _failed(self._span, error)


class _Nothing:
    """Where nothing is recorded: in place of a span and of a request."""

    __slots__ = ()

    trace = ""
    carrier: Carrier = ()

    def note(self, name: str, value: str | int) -> None:
        """Nobody records it."""

    def failed(self, error: Exception) -> None:
        """Nobody records it."""

    def cacheable(self) -> None:
        """Nobody records it."""

    def answered(self, outcome: Outcome, filled_by: str, route: str | None) -> None:
        """Nobody records it."""

    def left(self, error: BaseException | None = None) -> None:
        """Nobody records it."""

    def current(self) -> AbstractContextManager[None]:
        return nullcontext()


class _Unsampled(_Nothing):
    """A request whose span is not recorded: nothing is made under it, wherever its work goes on."""

    __slots__ = ("_span",)

    def __init__(self, span: Span) -> None:
        self._span = span

    def current(self) -> AbstractContextManager[None]:
        return _made_current(self._span)


class _Served:
    """A request under a server's span."""

    __slots__ = ("_span",)

    def __init__(self, span: Span) -> None:
        self._span = span

    @property
    def trace(self) -> str:
        return traceparent_of(self._span.get_span_context())

    def cacheable(self) -> None:
        """It has its span."""

    def answered(self, outcome: Outcome, filled_by: str, route: str | None) -> None:
        _described(self._span, outcome, filled_by)

    def left(self, error: BaseException | None = None) -> None:
        """Its span is the server's to end."""

    def current(self) -> AbstractContextManager[None]:
        return nullcontext() if trace.get_current_span().is_recording() else _made_current(self._span)


class _Alone:
    """A request that came without any span: `cacheinval.lookup` stands for it once it turns out to be cacheable.

    It is current from then on, so that what the app does is below it. An app that has telemetry of its own behind the
    cache begins another trace where the caller named none: then each of the two links to the other.
    """

    __slots__ = ("_entered", "_headers", "_span", "_token", "_tracer")

    def __init__(self, tracer: Tracer, headers: RawHeaders) -> None:
        self._tracer = tracer
        self._headers = headers
        self._entered = time_ns()
        self._span: Span | None = None
        self._token: Token[contexts.Context] | None = None

    @property
    def trace(self) -> str:
        span = self._span
        return traceparent_of(span.get_span_context()) if span is not None and span.is_recording() else ""

    def _caller(self) -> contexts.Context:
        """What the caller says of its trace, since no server has looked."""
        carrier: dict[str, str] = {}
        for name, value in self._headers:
            carrier.setdefault(name.decode("latin-1").lower(), value.decode("latin-1"))
        return propagate.extract(carrier)

    def cacheable(self) -> None:
        self._begin()
        if self._span is not None and not trace.get_current_span().get_span_context().is_valid:
            self._token = contexts.attach(trace.set_span_in_context(self._span))

    def _begin(self) -> None:
        if self._span is None:
            self._span = self._tracer.start_span("cacheinval.lookup", self._caller(), start_time=self._entered)

    def answered(self, outcome: Outcome, filled_by: str, route: str | None) -> None:
        self._begin()
        span = self._span
        if span is not None and span.is_recording():
            _described(span, outcome, filled_by)
            if route is not None:
                span.set_attribute(ROUTE, route)
            _link(span, trace.get_current_span())

    def left(self, error: BaseException | None = None) -> None:
        token, self._token = self._token, None
        if token is not None and trace.get_current_span() is self._span:
            # Not where a layer has run the lookup in a context of its own, which ends with that.
            contexts.detach(token)
        if self._span is not None and self._span.is_recording():
            if isinstance(error, Exception):
                _failed(self._span, error)
            self._span.end()

    def current(self) -> AbstractContextManager[None]:
        if trace.get_current_span().get_span_context().is_valid:
            return nullcontext()
        return _made_current(self._span or trace.get_current_span(self._caller()))


_NOTHING = _Nothing()
_NO_SPAN: AbstractContextManager[OpenSpan] = nullcontext(_NOTHING)


class Spans:
    """Tracing over the API's tracer; without one it is off."""

    def __init__(self) -> None:
        self._tracer: Tracer | None = None
        self.on = False

    def report_to(self, tracer: Tracer) -> None:
        """Record from now on."""
        self._tracer = tracer
        self.on = True

    def enter(self, headers: RawHeaders) -> Seen:
        if self._tracer is None:
            return _NOTHING
        span = trace.get_current_span()
        if span.is_recording():
            return _Served(span)
        if span.get_span_context().is_valid:
            return _Unsampled(span)
        return _Alone(self._tracer, headers)

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
        _failed(span, error)
        raise
    finally:
        contexts.detach(token)
        span.end()
