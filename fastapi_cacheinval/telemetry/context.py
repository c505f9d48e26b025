"""W3C Trace Context as text, and back."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from opentelemetry.trace import SpanContext, TraceFlags, TraceState

from fastapi_cacheinval.ports.tracing import Carrier

__all__ = ["carried", "carrier_of", "context_of", "contexts_of_carrier", "traceparent_of"]

_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_MOST_KNOWN = 16_384
# Characters of `tracestate` that travel: what W3C Trace Context asks for at least. It is kept in every line of the log.
_MOST_STATE = 512
_known: dict[str, SpanContext] = {}


def traceparent_of(context: SpanContext) -> str:
    """The `traceparent` of a valid context."""
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def carrier_of(context: SpanContext) -> Carrier:
    """What of a valid context travels: baggage, which may be anything, does not."""
    parent, state = ("traceparent", traceparent_of(context)), context.trace_state.to_header()
    return (parent, ("tracestate", state)) if 0 < len(state) <= _MOST_STATE else (parent,)


def carried(causes: Iterable[Mapping[str, str]]) -> Carrier:
    """The trace context in the fields of messages, under names in any case; what is none of it is left out."""
    found: list[tuple[str, str]] = []
    for fields in causes:
        known = {str(name).lower(): value for name, value in fields.items()}
        parent, state = known.get("traceparent"), known.get("tracestate")
        if isinstance(parent, str) and context_of(parent) is not None:
            found.append(("traceparent", parent))
            if isinstance(state, str) and len(state) <= _MOST_STATE:
                found.append(("tracestate", state))
    return tuple(found)


def context_of(traceparent: str) -> SpanContext | None:
    """The context that a `traceparent` names, as one from elsewhere; None for any other text."""
    known = _known.get(traceparent)
    if known is None:
        match = _TRACEPARENT.fullmatch(traceparent)
        if match is None:
            return None
        trace_id, span_id, flags = (int(part, 16) for part in match.groups())
        known = SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(flags))
        if not known.is_valid:
            return None
        if len(_known) >= _MOST_KNOWN:
            _known.clear()
        # A hit links to the same fill as the hit before.
        _known[traceparent] = known
    return known


def contexts_of_carrier(carrier: Carrier) -> tuple[SpanContext, ...]:
    """The contexts in what came from elsewhere: a purge that stands for several has as many."""
    found: list[SpanContext] = []
    for name, value in carrier:
        if name == "traceparent":
            context = context_of(value)
            if context is not None:
                found.append(context)
        elif name == "tracestate" and found and value:
            found[-1] = _with_state(found[-1], value)
    return tuple(found)


def _with_state(context: SpanContext, state: str) -> SpanContext:
    return SpanContext(
        context.trace_id,
        context.span_id,
        is_remote=True,
        trace_flags=context.trace_flags,
        trace_state=TraceState.from_header([state]),
    )
