"""How a request was answered, as the feed tells it: made of the outcome that `Cache-Status` is written from."""

from __future__ import annotations

from functools import lru_cache
from urllib.parse import parse_qsl

from starlette.types import Scope

from fastapi_cacheinval.core.credential_names import is_credential
from fastapi_cacheinval.core.events import Decision, digest_of, shown_target
from fastapi_cacheinval.core.outcome import Outcome, cache_status
from fastapi_cacheinval.core.statistics import route_label
from fastapi_cacheinval.core.stored import StoredResponse
from fastapi_cacheinval.core.tags import shown_tags
from fastapi_cacheinval.engine.internals import Internals
from fastapi_cacheinval.routes.path_shapes import IN_PATH

__all__ = ["shown_request", "tell_decision"]

# What is looked at of a query; the rest is not shown.
_MOST_QUERY = 4096


@lru_cache(maxsize=1024)
def _has_secret(template: str) -> bool:
    """Whether a path of this template holds what a credential's name stands for."""
    return any(is_credential(name) for name in IN_PATH.findall(template))


def shown_request(scope: Scope, route: str | None) -> str:
    """A request's path and query as they may be shown: values under the names of credentials are hidden.

    A path that holds one itself is shown as the route's template.
    """
    path = route if route is not None and _has_secret(route) else str(scope["path"])
    query = bytes(scope.get("query_string", b""))[:_MOST_QUERY].decode("latin-1")
    fields = parse_qsl(query, keep_blank_values=True)
    return shown_target(path, fields, [name for name, _ in fields if is_credential(name)])


def tell_decision(
    cache: Internals,
    scope: Scope,
    outcome: Outcome,
    *,
    began: float,
    route: str | None,
    stored: StoredResponse | None = None,
    key: bytes | None = None,
    tags: tuple[str, ...] = (),
) -> None:
    """Tell of a request that came at `began` on the cache's clock; `key` and `tags` count where nothing is stored."""
    engine = cache.engine
    cache.feed.decided(
        Decision(
            time=engine.clock.wall(),
            method=str(scope["method"]),
            path=shown_request(scope, route),
            route=route_label(route),
            result=outcome.result.value,
            reason=None if outcome.reason is None else outcome.reason.value,
            detail=outcome.detail,
            tier=outcome.tier,
            age=outcome.age,
            ttl=outcome.ttl,
            stored=outcome.stored,
            key=digest_of(key if stored is None else stored.key),
            tags=shown_tags(tags if stored is None else stored.tags),
            seconds=max(0.0, engine.now() - began),
            cache_status=cache_status(outcome).decode("latin-1"),
        )
    )
