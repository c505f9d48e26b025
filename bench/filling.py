"""A cache that holds very many responses, without a request for each."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

from fastapi import FastAPI

from bench.apps import POLICY, cached_app
from bench.requests import ask, get_scope
from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.cache import internals_of
from fastapi_cacheinval.core.keys import KeyParts, cache_key, raw_target
from fastapi_cacheinval.core.storing import Recipe, stored_response
from fastapi_cacheinval.core.tag_limits import bounded_tags

__all__ = ["big_cache", "filled", "grow"]

BODY = 128


def big_cache(limit: int) -> HTTPCache:
    """A cache with room for `limit` small responses."""
    return HTTPCache(l1_max_bytes=(limit + 1_000) * 4_096)


@contextmanager
def _without_collection() -> Iterator[None]:
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _keep(cache: HTTPCache, number: int) -> None:
    """What a forward of `/items/{number}` leaves behind."""
    engine = internals_of(cache).engine
    scope = get_scope(f"/items/{number}")
    host = scope["headers"][0][1]
    now = engine.now()
    named = engine.settings
    key = cache_key(KeyParts("policy", named.namespace, named.version, scope["scheme"], host, "", scope["path"]))
    recipe = Recipe(
        key=key,
        policy=POLICY,
        tags=bounded_tags((f"item:{number}", "items")),
        declared=(),
        request_headers=scope["headers"],
        path=scope["path"],
        private=False,
        anonymous=True,
        stamp=engine.replica.stamp(now),
        began=now,
        emit_surrogate_key=True,
    )
    body = b'{"id":%d,"text":"%s"}' % (number, b"x" * (BODY - 20 - len(str(number))))
    fields = [(b"content-length", b"%d" % len(body)), (b"content-type", b"application/json")]
    stored, chosen = stored_response(recipe, 200, fields, body, (), now=now, wall_now=0.0, draw=0.0)
    if not engine.keep(key, stored, chosen, now):
        raise RuntimeError(f"there is no room for response {number}")
    engine.store.alias(raw_target(scope, host), key)


def grow(cache: HTTPCache, first: int, last: int) -> None:
    """Keep responses `first` to `last` - 1 in a cache that has been started."""
    with _without_collection():
        for number in range(first, last):
            _keep(cache, number)
    kept = cache.statistics().responses
    if kept < last:
        raise RuntimeError(f"{kept} responses are kept instead of {last}")


async def filled(cache: HTTPCache) -> FastAPI:
    """An app on that cache, started, and proof that what `grow` keeps is what its forwards would find."""
    app = cached_app(BODY, cache)
    await ask(app, get_scope("/plain/1"))
    grow(cache, 0, 100)
    answer = await ask(app, get_scope("/items/42"))
    if not answer.field(b"cache-status").startswith(b"cacheinval; hit") or b'"id":42,' not in answer.body:
        raise RuntimeError(f"not the response that was kept: {answer}")
    return app
