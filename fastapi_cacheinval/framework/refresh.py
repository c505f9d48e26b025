"""Forwards in the background: one leads a key's flight, beside the requests that are served stale or wait."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from hashlib import blake2b
from typing import Any, cast

from starlette.types import Message, Scope

from fastapi_cacheinval.core.back_off import COULD_NOT_RENEW, NOBODY
from fastapi_cacheinval.core.decide import Serve
from fastapi_cacheinval.core.stored import StoredResponse
from fastapi_cacheinval.dependencies import SCOPE_KEY
from fastapi_cacheinval.engine.fill_locks import Answered, Granted, Refused, Unavailable
from fastapi_cacheinval.engine.flights import Flight
from fastapi_cacheinval.engine.runtime import Runtime
from fastapi_cacheinval.framework.app_context import AppContext
from fastapi_cacheinval.grammar.fields import lower_names, values
from fastapi_cacheinval.grammar.retry_after import parse_retry_after

logger = logging.getLogger("fastapi_cacheinval.refresh")

__all__ = ["RefreshOrder", "again", "caller_of", "lead_in_background"]

_RENEWED = frozenset({"stored", "found"})
# Seconds by which two readings of one stored response's age may differ.
_SAME = 0.005
# What others hang on a request for as long as it lasts; a refresh is a request of its own.
_CALLERS_OWN = frozenset({SCOPE_KEY, "fastapi.telemetry"})
_TRACE = frozenset({b"traceparent", b"tracestate"})


class RefreshOrder:
    """What makes a request a background refresh: the flight that it leads, and how it ended."""

    __slots__ = ("_answered", "_cut", "_flight", "_taken", "outcome")

    def __init__(self, flight: Flight) -> None:
        self._flight = flight
        self._taken = self._cut = False
        self._answered: list[tuple[bytes, bytes]] = []
        self.outcome = "failed"

    def take(self) -> Flight:
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
        """Take what the app says, in place of a client: only how long it asks to be left alone is of use."""
        if message["type"] == "http.response.start":
            self._answered = lower_names(message.get("headers", ()))

    def retry_after(self, wall: float) -> float | None:
        """For how many seconds the app asks to be left alone; `wall` is seconds since the epoch."""
        return parse_retry_after(values(self._answered, b"retry-after"), wall)

    def let_go(self) -> None:
        """The request has ended: whoever waits must not wait for a flight that nobody has taken."""
        if not self._taken:
            self._flight.fail()


def again(arrived: Scope, headers: list[tuple[bytes, bytes]], dropped: frozenset[bytes]) -> Scope:
    """The request again, as a plain GET of its own."""
    scope: dict[str, Any] = {
        key: dict(cast("dict[str, Any]", value)) if isinstance(value, dict) else value
        for key, value in arrived.items()
        if key not in _CALLERS_OWN
    }
    scope["method"] = "GET"
    # Its spans are its own trace's.
    scope["headers"] = [pair for pair in headers if pair[0] not in dropped and pair[0] not in _TRACE]
    scope["extensions"] = {}
    return scope


def caller_of(scope: Scope) -> bytes:
    """Whose request a refresh repeats, as far as an app can tell: by the address and by the fields that it carries."""
    client = scope.get("client")
    told = (client[0] if client else "", *(part for pair in scope["headers"] for part in pair))
    return blake2b(repr(told).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def lead_in_background(
    app_context: AppContext,
    runtime: Runtime,
    key: bytes,
    forward: Callable[[RefreshOrder], Awaitable[None]],
    *,
    newer_than: StoredResponse | None = None,
    cause: str = "",
    caller: bytes = NOBODY,
) -> bool:
    """Begin a background forward that leads a key's flight; False where one is under way or there is no room.

    Where replicas share a tier, what another one has refreshed since is taken in place of a forward. `cause` is the
    `traceparent` of the request that asks for it; where that is not recorded, neither is this. `caller` says whose
    request is repeated (`caller_of`).
    """
    flight = runtime.flights.lead(key) if runtime.may_refresh(key, newer_than, caller) else None
    if flight is None:
        return False
    order = RefreshOrder(flight)
    begun = False

    async def refresh() -> str:
        nonlocal begun
        begun = True
        with app_context.cache.tracing.span("cacheinval.refresh", link=cause) as span:
            try:
                if not await _found_in_l2(app_context, runtime, flight, order, newer_than):
                    try:
                        await forward(order)
                    finally:
                        order.let_go()
            except Exception:
                # A refresh has no client to tell; the stored response stays in use.
                order.came("failed")
                logger.log(runtime.log_once.level("refreshes"), "a background refresh failed", exc_info=True)
                raise
            finally:
                span.note("cacheinval.outcome", order.outcome)
        if order.outcome == "stored":
            runtime.log_once.well("refreshes")
        return order.outcome

    def ended(outcome: str) -> None:
        if not begun:
            flight.fail()
        app_context.counters.refreshed(outcome)
        if newer_than is not None and outcome in COULD_NOT_RENEW:
            runtime.back_off(key, newer_than, order.retry_after(app_context.cache.clock.wall()), caller)
        elif outcome in _RENEWED:
            runtime.renewed(key)

    runtime.refresh(key, refresh, ended, order.cut)
    return True


async def _found_in_l2(
    app_context: AppContext, runtime: Runtime, flight: Flight, order: RefreshOrder, newer_than: StoredResponse | None
) -> bool:
    """Whether a background forward is not needed: another replica was quicker, or no answer can be shared."""
    l2, engine = runtime.l2, app_context.engine
    if l2 is None or not l2.open:
        return False

    def wanted(stored: StoredResponse) -> bool:
        newer = newer_than is None or stored.created > newer_than.created + _SAME
        return newer and isinstance(engine.decide(stored, engine.now()), Serve)

    deadline = engine.now() + engine.settings.refresh_timeout
    match await l2.lead_flight(flight, flight.key, (), deadline, wanted):
        case Answered():
            order.came("found")
            return True
        case Refused():
            order.came("refused")
            return True
        case Granted() | Unavailable():
            return False
