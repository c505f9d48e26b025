"""How a request names what a route answers: by the raw target that came, and by what the route is given of its path."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from starlette.requests import Request
from starlette.types import Scope

from fastapi_cacheinval.core.keys import (
    KeyParts,
    PartitionTypeError,
    as_bytes,
    below,
    encode,
    framed_key,
    kept_query,
    key_frame,
    partition_digest,
    raw_target,
    sent_host,
    sent_path,
)
from fastapi_cacheinval.core.policy import CachePolicy
from fastapi_cacheinval.framework.app_context import AppContext
from fastapi_cacheinval.grammar.cache_control import parse
from fastapi_cacheinval.grammar.fields import first, head_tells_of_content, values
from fastapi_cacheinval.ports.store import Target
from fastapi_cacheinval.routes.bindings import rendered_all
from fastapi_cacheinval.routes.plan import RoutePlan

__all__ = ["Asks", "Wanted", "key_parts_of", "tags_of", "wanted_of"]

# The parts of a raw target, which no layer may have rewritten.
_SENT = ("path", "raw_path", "query_string", "scheme")


class Wanted(NamedTuple):
    """What one request asks of a cached route, once the dependencies of its `cached()` have run.

    `path` is without the root path; `headers` as the route sees them; `split` says whether clients choose by their
    query which keys there are; `target` is the raw target that may lead to what is stored under `key`, None where it
    must not.
    """

    request: Request
    plan: RoutePlan
    policy: CachePolicy
    path: str
    headers: list[tuple[bytes, bytes]]
    key: bytes
    split: bool
    target: Target | None

    @property
    def only_if_cached(self) -> bool:
        """Whether the client wants nothing but what is stored (RFC 9111 section 5.2.1.7)."""
        asked = values(self.headers, b"cache-control")
        return bool(asked) and parse(asked).only_if_cached

    @property
    def for_part(self) -> bool:
        """Whether the client asks for a part of the response."""
        return first(self.headers, b"range") is not None


class Asks(Protocol):
    """Whoever asks: an exchange, or somebody who only wants to know."""

    @property
    def app_context(self) -> AppContext: ...

    @property
    def arrived(self) -> Scope: ...

    @property
    def client_headers(self) -> list[tuple[bytes, bytes]]: ...


def wanted_of(
    exchange: Asks, request: Request, plan: RoutePlan, policy: CachePolicy, partition: tuple[object, ...]
) -> Wanted | PartitionTypeError:
    """What a request asks of its route; why it asks for nothing, where its partition is no part of a key."""
    app_context, scope = exchange.app_context, request.scope
    parts = key_parts_of(app_context, exchange.arrived, scope, plan)
    try:
        digest = partition_digest(partition, app_context.cache.secret) if partition else b""
    except PartitionTypeError as error:
        return error
    key, target = framed_key(key_frame(parts), digest), _front_target(exchange, scope, plan)
    return Wanted(request, plan, policy, parts.path, [*scope["headers"]], key, bool(parts.query), target)


def tags_of(wanted: Wanted, dropped: Callable[[], None]) -> tuple[str, ...] | None:
    """The policy's tags for the validated parameters; None where these are not valid.

    `dropped` is told of each that nothing is left of.
    """
    return rendered_all(wanted.policy.templates, wanted.plan.bindings, wanted.request, dropped)


def key_parts_of(app_context: AppContext, arrived: Scope, scope: Scope, plan: RoutePlan) -> KeyParts:
    """The parts of the key of a request at its route, but the partition; `arrived` is what it was when it came."""
    # What other middleware outside ours set as the root path is no part of what a route sees.
    root_path = app_context.root_of(arrived)
    path = below(root_path, scope["path"]) if root_path else scope["path"]
    origin = scope.get("scheme", "http"), b", ".join(values(scope["headers"], b"host"))
    return app_context.key_parts(
        "policy",
        origin,
        root_path,
        path,
        sent=_target_as_sent(scope) if plan.sees_request else b"",
        route=plan.identity,
        given=_given_of_path(plan, scope) if plan.elsewhere else (),
        query=kept_query(scope.get("query_string", b""), plan.query),
        terms=plan.terms,
        covered_by=plan.covered_by,
        local=app_context.local_part(plan.identity, plan.ordinal, plan.epoch, plan.nameless),
    )


def _front_target(exchange: Asks, scope: Scope, plan: RoutePlan) -> Target | None:
    """The raw target that may lead straight to this route's response; None where it must not.

    Only if the request reached the route as it reached us: a layer that rewrites it would poison
    the target for everybody.
    """
    arrived = exchange.arrived
    if not plan.front or plan.epoch or exchange.client_headers != scope["headers"]:
        return None
    if any(scope.get(part) != arrived.get(part) for part in _SENT):
        return None
    hosts = values(exchange.client_headers, b"host")
    if len(hosts) != 1 or first(exchange.client_headers, b"authorization") is not None:
        return None
    spelling = (arrived.get("raw_path"), arrived.get("http_version")) if plan.sees_request else ()
    if spelling and not head_tells_of_content(scope.get("http_version")):
        # The route may answer by the content, and only what the client sends next tells whether there is some.
        return None
    return exchange.app_context.front_target(raw_target(arrived, hosts[0]), spelling)


def _given_of_path(plan: RoutePlan, scope: Scope) -> tuple[bytes, ...]:
    """What the route is given of the path that the path does not hold."""
    given = scope.get("path_params", {})
    return tuple([b"+" + as_bytes(str(given[name])) if name in given else b"" for name in plan.elsewhere])


def _target_as_sent(scope: Scope) -> bytes:
    """The path and the host as the raw request has them, where the route is handed that: it tells spellings apart."""
    seen = (str(scope.get("root_path", "")), scope["path"])
    path = (*map(as_bytes, seen), sent_path(scope.get("raw_path"), b""))
    return encode((*path, *sent_host(values(scope["headers"], b"host"), scope.get("server"))))
