"""Requests as tracing sees them: under a server's span, under one that is not sampled, or without any."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import Token
from time import time_ns

from opentelemetry import context as contexts
from opentelemetry import propagate, trace
from opentelemetry.trace import Span, StatusCode, Tracer

from fastapi_cacheinval.core.outcome import Outcome
from fastapi_cacheinval.grammar.fields import RawHeaders
from fastapi_cacheinval.ports.tracing import Carrier
from fastapi_cacheinval.telemetry.attributes import AGE, DETAIL, REASON, RESULT, ROUTE, TIER
from fastapi_cacheinval.telemetry.context import context_of, traceparent_of

__all__ = [
    "LOOKUP",
    "NOTHING_ABOVE",
    "Alone",
    "Nothing",
    "Served",
    "Unsampled",
    "below_caller",
    "failed",
]

# Of version 00, and the last hexadecimal digit of its flags where the lowest bit is not set.
_TRACEPARENT_LENGTH = 55
_NOT_SAMPLED = "02468aceACE"
_NOT_SAMPLED_BYTES = _NOT_SAMPLED.encode()
NOTHING_ABOVE = contexts.Context()
LOOKUP = "cacheinval.lookup"


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


def failed(span: Span, error: Exception) -> None:
    """Mark a span as an error."""
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


class Nothing:
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


class Unsampled(Nothing):
    """A request whose span is not recorded: nothing is made under it, wherever its work goes on."""

    __slots__ = ("_span",)

    def __init__(self, span: Span) -> None:
        self._span = span

    def current(self) -> AbstractContextManager[None]:
        return _made_current(self._span)


class Served:
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


class Alone:
    """A request that came without any span: `cacheinval.lookup` stands for it once it turns out to be cacheable.

    It is current from then on, so that what the app does is below it. An app that has telemetry of its own behind the
    cache begins another trace where the caller named none: then each of the two links to the other. `fields` are those
    in which callers name their trace; where they say that it is not sampled, there is no span.
    """

    __slots__ = ("_entered", "_fields", "_headers", "_span", "_token", "_tracer")

    def __init__(self, tracer: Tracer, fields: frozenset[bytes], headers: RawHeaders, span: Span | None = None) -> None:
        self._tracer = tracer
        self._fields = fields
        self._headers = headers
        self._entered = time_ns()
        self._span = span
        self._token: Token[contexts.Context] | None = None

    @property
    def trace(self) -> str:
        span = self._span
        return traceparent_of(span.get_span_context()) if span is not None and span.is_recording() else ""

    def _caller(self) -> contexts.Context:
        """What the caller says of its trace, since no server has looked."""
        carrier = self._carrier()
        return propagate.extract(carrier) if carrier else NOTHING_ABOVE

    def _carrier(self) -> dict[str, str]:
        carrier: dict[str, str] = {}
        fields = self._fields
        for name, value in self._headers:
            if name in fields:
                carrier.setdefault(name.decode("latin-1"), value.decode("latin-1"))
        return carrier

    def cacheable(self) -> None:
        self.begin()
        if self._span is not None and not trace.get_current_span().get_span_context().is_valid:
            self._token = contexts.attach(trace.set_span_in_context(self._span))

    def begin(self) -> None:
        """Make its span, unless it has one, or the caller says that it is not sampled."""
        if self._span is not None:
            return
        above = NOTHING_ABOVE
        carrier = self._carrier()
        if carrier:
            parent = carrier.get("traceparent", "")
            if len(parent) == _TRACEPARENT_LENGTH and parent[-1] in _NOT_SAMPLED:
                return
            above = propagate.extract(carrier)
        self._span = self._tracer.start_span(LOOKUP, above, start_time=self._entered)

    @property
    def recorded(self) -> bool:
        """Whether it has a span that records."""
        return self._span is not None and self._span.is_recording()

    def answered(self, outcome: Outcome, filled_by: str, route: str | None) -> None:
        self.begin()
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
                failed(self._span, error)
            self._span.end()

    def current(self) -> AbstractContextManager[None]:
        if trace.get_current_span().get_span_context().is_valid:
            return nullcontext()
        return _made_current(self._span or trace.get_current_span(self._caller()))


def below_caller(tracer: Tracer, fields: frozenset[bytes], headers: RawHeaders) -> Alone | None:
    """An `Alone` that has its span, for a caller that names its trace; None where that is not sampled."""
    for name, value in headers:
        if name in fields:
            if name == b"traceparent" and len(value) == _TRACEPARENT_LENGTH and value[-1:] in _NOT_SAMPLED_BYTES:
                return None
            break
    alone = Alone(tracer, fields, headers)
    alone.begin()
    return alone if alone.recorded else None
