"""The port of tracing: what the cache does, as spans beside the user's own."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from fastapi_cacheinval.core.outcome import Outcome
from fastapi_cacheinval.grammar.fields import RawHeaders

__all__ = ["Carrier", "OpenSpan", "Seen", "Tracing"]

Carrier = tuple[tuple[str, str], ...]
"""Trace context as it travels: names and values of W3C Trace Context."""


class OpenSpan(Protocol):
    """A span under way, or what stands for one where nothing is recorded."""

    @property
    def trace(self) -> str:
        """Its `traceparent`, empty where nothing is recorded."""
        ...

    @property
    def carrier(self) -> Carrier:
        """Its context, to be passed on; empty where nothing is recorded."""
        ...

    def note(self, name: str, value: str | int) -> None:
        """Set an attribute."""
        ...

    def failed(self, error: Exception) -> None:
        """Say that what it stands for has failed, although nobody is told by an exception."""
        ...


class Seen(Protocol):
    """One request as tracing sees it, noted when it entered: later an inner span is current."""

    @property
    def trace(self) -> str:
        """The `traceparent` of the span that stands for the request, empty where nothing is recorded."""
        ...

    def cacheable(self) -> None:
        """A lookup begins: where the request has no span of a server's, it gets one of the cache's own."""
        ...

    def answered(self, outcome: Outcome, filled_by: str, route: str | None) -> None:
        """The request is answered so, by this route; `filled_by` is the `traceparent` of the stored response."""
        ...

    def left(self, error: BaseException | None = None) -> None:
        """The request is over, by this error if there is one; harmless twice."""
        ...

    def current(self) -> AbstractContextManager[None]:
        """Make the request's span the parent of what follows, unless one inside it is."""
        ...


class Tracing(Protocol):
    """Makes spans. No call awaits, raises or does I/O; any thread may call.

    `on` is whether anybody records; while it is off every other call gives what does nothing.
    """

    on: bool

    def enter(self, headers: RawHeaders) -> Seen:
        """Note the span that a request comes in with."""
        ...

    def hit(self, headers: RawHeaders) -> Seen | None:
        """As `enter`, for a request whose answer is at hand: it is cacheable, and None is that nobody records it."""
        ...

    def span(
        self, name: str, *, parent: str = "", link: str = "", root: bool = False, links: Carrier = ()
    ) -> AbstractContextManager[OpenSpan]:
        """A span around a block, current in it.

        Below `parent`, a `traceparent`, else below the current one, else, for a `root`, by itself, with `links` to what
        came from elsewhere; where a `link` is given, by itself with a link to that. None of these, or not recorded: no
        span.
        """
        ...

    def point(self, name: str, carrier: Carrier | None, **attributes: str | int | bool) -> None:
        """A span of no length by itself, with a link to trace context that came from elsewhere; none without one.

        What nobody elsewhere has caused has None for it, and its span in any case.
        """
        ...
