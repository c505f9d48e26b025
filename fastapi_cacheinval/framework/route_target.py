"""How a request names what a route answers: by the raw target that came, and by what the route is given of its path."""

from __future__ import annotations

from starlette.types import Scope

from fastapi_cacheinval.core.keys import encode, sent_host, sent_path
from fastapi_cacheinval.framework.exchange import Exchange
from fastapi_cacheinval.grammar.fields import first, values
from fastapi_cacheinval.ports.store import Target
from fastapi_cacheinval.routes.plan import RoutePlan

__all__ = ["front_target", "given_of_path", "raw_target", "target_as_sent"]


def raw_target(scope: Scope, host: bytes | None) -> Target:
    """What the front lookup finds a stored response by, as the server gave it."""
    return (
        host,
        scope["path"],
        scope.get("query_string", b""),
        scope.get("scheme", "http"),
        scope.get("root_path", ""),
    )


def front_target(exchange: Exchange, scope: Scope, plan: RoutePlan) -> Target | None:
    """The raw target that may lead straight to this route's response; None where it must not.

    Only if the request reached the route as it reached us: a layer that rewrites it would poison
    the target for everybody.
    """
    arrived = exchange.arrived
    if not plan.front or plan.epoch or exchange.client_headers != scope["headers"]:
        return None
    if any(scope.get(part) != arrived.get(part) for part in ("path", "raw_path", "query_string", "scheme")):
        return None
    hosts = values(exchange.client_headers, b"host")
    if len(hosts) != 1 or first(exchange.client_headers, b"authorization") is not None:
        return None
    spelling = (arrived.get("raw_path"),) if plan.sees_request else ()
    return exchange.app_context.front_target(raw_target(arrived, hosts[0]), spelling)


def given_of_path(plan: RoutePlan, scope: Scope) -> tuple[bytes, ...]:
    """What the route is given of the path that the path does not hold."""
    given = scope.get("path_params", {})
    return tuple(
        [b"+" + str(given[name]).encode("utf-8", "surrogatepass") if name in given else b"" for name in plan.elsewhere]
    )


def target_as_sent(plan: RoutePlan, scope: Scope) -> bytes:
    """The path and the host as the raw request has them, where the route is handed that: it tells spellings apart."""
    if not plan.sees_request:
        return b""
    seen = (str(scope.get("root_path", "")), scope["path"])
    path = (*(part.encode("utf-8", "surrogatepass") for part in seen), sent_path(scope.get("raw_path"), b""))
    return encode((*path, *sent_host(values(scope["headers"], b"host"))))
