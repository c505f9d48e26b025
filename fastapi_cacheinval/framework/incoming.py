"""A request that the front lookup has not answered: where it came from, and what was known when it came.

Everything that takes part in answering it is made of an `Incoming`, the request now, and an `Entered`, as it came.
"""

from __future__ import annotations

from typing import NamedTuple

from starlette.types import Message, Receive, Scope, Send

from fastapi_cacheinval.core.outcome import Outcome
from fastapi_cacheinval.core.stored import Stamp, StoredResponse
from fastapi_cacheinval.engine.flights import Flight
from fastapi_cacheinval.engine.runtime import Runtime
from fastapi_cacheinval.framework.app_context import AppContext
from fastapi_cacheinval.framework.cdn_fields import CDNFields
from fastapi_cacheinval.framework.server_spans import Contrib
from fastapi_cacheinval.grammar.fields import lower_names, values
from fastapi_cacheinval.grammar.retry_after import parse_retry_after
from fastapi_cacheinval.ports.tracing import Seen
from fastapi_cacheinval.routes.fastapi_solver import Handed
from fastapi_cacheinval.routes.shortcuts import Shortcut

__all__ = ["Entered", "Incoming", "RefreshOrder"]


class RefreshOrder:
    """What makes a request one of the cache's own: the flight that it leads, if any, and how it ended.

    A background refresh goes forward whatever is stored; without `forced` it is answered as a client would be.
    """

    __slots__ = ("_answered", "_cut", "_flight", "_taken", "forced", "outcome", "status", "stored", "told")

    def __init__(self, flight: Flight | None, *, forced: bool = True) -> None:
        self._flight = flight
        self._taken = self._cut = False
        self._answered: list[tuple[bytes, bytes]] = []
        self.forced = forced
        self.outcome = "failed"
        # What the app, or the cache in its place, has answered, and how that came.
        self.status: int | None = None
        self.told: Outcome | None = None
        # What it was answered with, where that was stored.
        self.stored: StoredResponse | None = None

    def lead(self, flight: Flight) -> None:
        """It leads another flight, because the one before is over."""
        self._flight = flight

    def take(self) -> Flight | None:
        """The flight, from now on the caller's to end."""
        self._taken = True
        return self._flight

    def came(self, outcome: str) -> None:
        """How the refresh ends."""
        if not self._cut:
            self.outcome = outcome

    def cut(self, outcome: str) -> None:
        """It is ended from outside, whatever comes of it yet."""
        self.outcome, self._cut = outcome, True

    async def hear(self, message: Message) -> None:
        """Take what the app says, in place of a client: only its status and how long it asks to be left alone."""
        if message["type"] == "http.response.start" and self.status is None:
            self.status = message["status"]
            self._answered = lower_names(message.get("headers", ()))

    def retry_after(self, wall: float) -> float | None:
        """For how many seconds the app asks to be left alone; `wall` is seconds since the epoch."""
        return parse_retry_after(values(self._answered, b"retry-after"), wall)

    def let_go(self) -> None:
        """The request has ended: nobody waits for a flight that nobody has taken."""
        if not self._taken and self._flight is not None:
            self._flight.fail()


class Ahead(NamedTuple):
    """What is known of a request's route before the app has it: what came of its covers, and a `stamp` of before."""

    shortcut: Shortcut
    handed: Handed
    stamp: Stamp


class Incoming(NamedTuple):
    """One request in this cache.

    `cdn_fields` is the outer end of `send`, where a CDN in front is told something. `closed` says why the request may
    neither be answered from the cache nor fill it: the app answers it. `order` makes it a background refresh.
    `ahead` is what is known of its route before the app has it.
    """

    app_context: AppContext
    runtime: Runtime
    scope: Scope
    receive: Receive
    send: Send
    cdn_fields: CDNFields | None = None
    closed: str | None = None
    order: RefreshOrder | None = None
    ahead: Ahead | None = None


class Entered(NamedTuple):
    """A request as it came; layers inside write into the scope that they are given, and into its headers.

    What is read from now on is at least as new as `stamp`. `seen` is the request as tracing sees it, where anybody
    records, and `contrib` who observes it from outside of the middleware, besides FastAPI itself.
    """

    scope: Scope
    headers: list[tuple[bytes, bytes]]
    stamp: Stamp
    seen: Seen | None
    contrib: Contrib | None

    @property
    def trace(self) -> str:
        """The `traceparent` of the request, empty where nobody records it."""
        return "" if self.seen is None else self.seen.trace
