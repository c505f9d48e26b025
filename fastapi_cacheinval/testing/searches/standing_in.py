"""What stands around every `CacheMiddleware` of this process while tests run: the searches, and other insides."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from starlette.types import Receive, Scope, Send

from fastapi_cacheinval.cache import HTTPCache, internals_of
from fastapi_cacheinval.dependencies import SCOPE_KEY
from fastapi_cacheinval.engine.internals import Internals
from fastapi_cacheinval.errors import ConfigurationError
from fastapi_cacheinval.middleware import CacheMiddleware
from fastapi_cacheinval.ports.clock import Clock
from fastapi_cacheinval.testing.searches.search import Search

__all__ = ["isolated", "stand_around"]

_StandIns = WeakKeyDictionary[CacheMiddleware, tuple[Internals, CacheMiddleware]]


def _insides(middleware: CacheMiddleware) -> Internals:
    return middleware._core  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - what it was made with


def stand_around(search: Search) -> Callable[[], None]:
    """Have requests of every middleware looked at by the searches; what is returned ends it.

    A middleware whose cache has got other insides since it was made is stood in for by one that has those.
    """
    call = CacheMiddleware.__call__
    stand_ins: _StandIns = WeakKeyDictionary()

    def now(middleware: CacheMiddleware) -> CacheMiddleware:
        insides = internals_of(middleware.cache)
        if insides is _insides(middleware):
            return middleware
        known = stand_ins.get(middleware)
        if known is None or known[0] is not insides:
            known = stand_ins[middleware] = (insides, middleware.again(middleware.app))
        return known[1]

    async def around(self: CacheMiddleware, scope: Scope, receive: Receive, send: Send) -> None:
        middleware = now(self)
        if scope["type"] != "http" or SCOPE_KEY in scope or not search.wanted:
            await call(middleware, scope, receive, send)
            return
        await search.around(partial(call, middleware, scope, receive), middleware, scope, send, at=self)

    replaced: Any = CacheMiddleware
    replaced.__call__ = around

    def end() -> None:
        replaced.__call__ = call

    return end


@contextmanager
def isolated(cache: HTTPCache, clock: Clock) -> Generator[HTTPCache, None, None]:
    """Give a cache other insides while the block runs: empty, in this process alone, with the same settings.

    Listeners, observers, and watched sessions stay with it; attached sources rest. It has to be inside of
    `stand_around`, and stopped when the block begins and ends.
    """
    if not isinstance(cache, HTTPCache):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigurationError(f"the cache under test is an HTTPCache, not {cache!r}.")
    before = internals_of(cache)
    insides = Internals(cache.settings, clock, None, enabled=before.enabled)
    insides.expects_changes = before.expects_changes
    insides.listeners.listeners = [*before.listeners.listeners]
    insides.listeners.observers = [*before.listeners.observers]
    object.__setattr__(cache, "_core", insides)
    try:
        yield cache
    finally:
        object.__setattr__(cache, "_core", before)
