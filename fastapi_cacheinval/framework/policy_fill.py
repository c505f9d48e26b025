"""Where a route lookup goes forward: the handler runs, and its response is seen as a fill."""

from __future__ import annotations

from starlette.requests import Request

from fastapi_cacheinval.core.storing import Recipe
from fastapi_cacheinval.engine.coalescing import Go
from fastapi_cacheinval.framework.exchange import Exchange
from fastapi_cacheinval.framework.filling import Fill
from fastapi_cacheinval.framework.policy_rules import PolicyRules
from fastapi_cacheinval.framework.responding import hide_what_bypasses, without_conditions
from fastapi_cacheinval.framework.route_target import Wanted
from fastapi_cacheinval.routes.own_code import answers_by_the_error_alone, sent_without_the_request
from fastapi_cacheinval.routes.plan import Sharing

__all__ = ["begin_fill"]


def begin_fill(exchange: Exchange, wanted: Wanted, tags: tuple[str, ...], go: Go) -> Fill:
    """See what the handler answers as a fill of what is wanted, tagged with the policy's `tags`."""
    app_context, plan, policy, route = exchange.app_context, wanted.plan, wanted.policy, exchange.route
    # Made before any thread of the handler can: two that made one each would lose the tags of one.
    exchange.request_tags()
    # A refresh may be nobody's if no middleware on the way could ask who it is. Where the author has decided about the
    # front lookup, it says nothing of what is on the way.
    anonymous = plan.sharing is Sharing.PROVED and plan.front and app_context.front is None
    recipe = Recipe(
        key=wanted.key,
        policy=policy,
        tags=tags,
        declared=plan.headers,
        request_headers=wanted.headers,
        path=wanted.path,
        private=bool(policy.partition or policy.guards),
        front=anonymous,
        stamp=exchange.stamp,
        began=app_context.engine.now(),
        emit_surrogate_key=app_context.emit_surrogate_key,
        split=wanted.split,
        route=route,
        trace=exchange.entered.trace,
    )
    app_context.counters.forwarded(go.reason, route)
    rules = PolicyRules(exchange, recipe)
    if plan.sharing is not Sharing.DECLARED:
        _watch(exchange, wanted.request, rules)
    _normalise(wanted)
    return Fill(exchange, rules, go)


def _watch(exchange: Exchange, request: Request, rules: PolicyRules) -> None:
    """No signature says what is read by those who are handed the request after the handler."""

    def raised(error: BaseException) -> None:
        if not answers_by_the_error_alone(request.scope, error):
            rules.seen_by("exception-handler")

    def made(response: object) -> None:
        if not sent_without_the_request(response):
            rules.seen_by("own-response")

    exchange.on_end(request.scope, raised, made)


def _normalise(wanted: Wanted) -> None:
    """Make the handler see a plain GET for the whole response."""
    request, headers = wanted.request, wanted.headers
    plain = without_conditions(headers)
    if len(plain) < len(headers):
        request.scope["headers"] = plain
        # The request keeps what it has parsed of them.
        request.__dict__.pop("_headers", None)
    hide_what_bypasses(request.scope)
