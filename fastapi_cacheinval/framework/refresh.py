"""Forwards in the background: one leads a key's flight, beside the requests that are served stale or wait."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from hashlib import blake2b
from typing import Any, cast

from starlette.types import Scope

from fastapi_cacheinval.core.back_off import COULD_NOT_RENEW, NOBODY, SAME_READING
from fastapi_cacheinval.core.conditional import CONDITIONAL_FIELDS
from fastapi_cacheinval.core.stored import StoredResponse
from fastapi_cacheinval.dependencies import SCOPE_KEY
from fastapi_cacheinval.engine.fill_locks import Answered, Granted, Refused, Unavailable
from fastapi_cacheinval.engine.flights import Flight
from fastapi_cacheinval.engine.runtime import Runtime
from fastapi_cacheinval.framework.app_context import AppContext
from fastapi_cacheinval.framework.incoming import Entered, Incoming, RefreshOrder
from fastapi_cacheinval.framework.receiving import nobody
from fastapi_cacheinval.ports.tracing import Seen

logger = logging.getLogger("fastapi_cacheinval.refresh")

__all__ = ["lead_in_background", "made_again", "order_refresh", "order_refresh_at_front"]

_CREDENTIALS = frozenset({b"authorization", b"cookie", b"proxy-authorization"})
_RENEWED = frozenset({"stored", "found"})
# What others hang on a request for as long as it lasts; a refresh is a request of its own.
_CALLERS_OWN = frozenset({SCOPE_KEY, "fastapi.telemetry"})
_TRACE = frozenset({b"traceparent", b"tracestate"})


def order_refresh(app_context: AppContext, runtime: Runtime, entered: Entered, stored: StoredResponse) -> None:
    """Have a policy's stored response refreshed in the background, if nobody is at it and there is room.

    `entered` is the request that asks for it. A response that is proved shared is fetched as nobody; one that is not
    needs the caller, or it would be refused for ever.
    """
    dropped = CONDITIONAL_FIELDS
    if stored.anonymous:
        dropped = dropped | (_CREDENTIALS - {name for name, _ in stored.vary})
    again = app_context.mode.read_by_policy
    lead_in_background(app_context, runtime, entered, again, stored.key, dropped=dropped, newer_than=stored)


def order_refresh_at_front(
    app_context: AppContext, scope: Scope, seen: Seen | None, stored: StoredResponse, now: float
) -> None:
    """The same for a request that the front lookup has answered."""
    entered = Entered(scope, [*scope["headers"]], app_context.engine.replica.stamp(now), seen, None)
    order_refresh(app_context, app_context.cache.runtime, entered, stored)


def lead_in_background(
    app_context: AppContext,
    runtime: Runtime,
    entered: Entered,
    forward: Callable[[Incoming], Awaitable[None]],
    key: bytes,
    *,
    dropped: frozenset[bytes] = CONDITIONAL_FIELDS,
    newer_than: StoredResponse | None = None,
) -> bool:
    """Begin a background forward that leads a key's flight; False where one is under way or there is no room.

    `forward` is given the request `entered` once more, without the fields `dropped`. Where replicas share a tier, what
    another one has refreshed since is taken in place of a forward. A request that nobody records causes a refresh that
    nobody records.
    """
    scope = made_again(entered, dropped)
    # What is proved to be the same for all is fetched as nobody.
    caller = NOBODY if newer_than is not None and newer_than.anonymous else _caller_of(scope)
    flight = runtime.flights.lead(key) if runtime.may_refresh(key, newer_than, caller) else None
    if flight is None:
        return False
    order, cache = RefreshOrder(flight), app_context.cache
    # The request may have ended by the time that the refresh begins.
    cause = entered.trace
    begun = False

    async def refresh() -> str:
        nonlocal begun
        begun = True
        with cache.tracing.span("cacheinval.refresh", link=cause) as span:
            try:
                if not await _found_in_l2(app_context, runtime, flight, order, newer_than):
                    await _forwarded(app_context, runtime, scope, order, forward)
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
            runtime.back_off(key, newer_than, order.retry_after(cache.clock.wall()), caller)
        elif outcome in _RENEWED:
            runtime.renewed(key)

    runtime.refresh(key, refresh, ended, order.cut, caller=copy_context())
    return True


async def _forwarded(
    app_context: AppContext,
    runtime: Runtime,
    scope: Scope,
    order: RefreshOrder,
    forward: Callable[[Incoming], Awaitable[None]],
) -> None:
    """Give a request of the cache's own to the app, whatever is stored."""
    closed = None if app_context.cache.enabled else "disabled"
    incoming = Incoming(app_context, runtime, scope, nobody, order.hear, closed=closed, order=order)
    try:
        await forward(incoming)
    finally:
        order.let_go()


def made_again(entered: Entered, dropped: frozenset[bytes]) -> Scope:
    """The request again, as a plain GET of its own."""
    scope: dict[str, Any] = {
        key: dict(cast("dict[str, Any]", value)) if isinstance(value, dict) else value
        for key, value in entered.scope.items()
        if key not in _CALLERS_OWN
    }
    scope["method"] = "GET"
    # Its spans are its own trace's.
    scope["headers"] = [pair for pair in entered.headers if pair[0] not in dropped and pair[0] not in _TRACE]
    scope["extensions"] = {}
    return scope


def _caller_of(scope: Scope) -> bytes:
    """Whose request a refresh repeats, as far as an app can tell: by the address and by the fields that it carries."""
    client = scope.get("client")
    told = (client[0] if client else "", *(part for pair in scope["headers"] for part in pair))
    return blake2b(repr(told).encode("utf-8", "surrogatepass"), digest_size=16).digest()


async def _found_in_l2(
    app_context: AppContext, runtime: Runtime, flight: Flight, order: RefreshOrder, newer_than: StoredResponse | None
) -> bool:
    """Whether a background forward is not needed: another replica was quicker, or no answer can be shared."""
    l2, engine = runtime.l2, app_context.engine
    if l2 is None or not l2.open:
        return False

    def wanted(stored: StoredResponse) -> bool:
        newer = newer_than is None or stored.created > newer_than.created + SAME_READING
        return newer and engine.serves(stored, engine.now())

    deadline = engine.now() + engine.settings.refresh_timeout
    match await l2.lead_flight(flight, flight.key, (), deadline, wanted):
        case Answered():
            order.came("found")
            return True
        case Refused():
            # That no answer can be shared says nothing of the stale one here: it is refreshed, or withdrawn, by this
            # replica's own forward.
            again = None if newer_than is None else runtime.flights.lead(flight.key)
            if again is None:
                order.came("refused")
                return True
            order.lead(again)
            return False
        case Granted() | Unavailable():
            return False
