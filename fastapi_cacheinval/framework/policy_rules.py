"""Where a route lookup goes forward: the handler runs, and its response is a fill by the rules of its policy."""

from __future__ import annotations

from starlette.requests import Request
from starlette.types import Send

from fastapi_cacheinval.core.should_store import ShouldStore, is_to_be_stored
from fastapi_cacheinval.core.stored import StoredResponse
from fastapi_cacheinval.core.storing import (
    Recipe,
    downstream_fields,
    has_too_many_tags,
    refusal,
    stored_response,
    streamed_fields,
)
from fastapi_cacheinval.engine.coalescing import Go
from fastapi_cacheinval.framework.exchange import Exchange, forget_parsed_fields
from fastapi_cacheinval.framework.fill_rules import Cover, Form, Keep, Made, Refuse, StartVerdict, outdates
from fastapi_cacheinval.framework.filling import Fill
from fastapi_cacheinval.framework.responding import hide_what_bypasses, send_response, without_conditions
from fastapi_cacheinval.framework.route_target import Wanted
from fastapi_cacheinval.grammar.fields import RawField, of_the_connection
from fastapi_cacheinval.routes.own_code import answers_by_the_error_alone, sent_without_the_request
from fastapi_cacheinval.routes.plan import Sharing

__all__ = ["PolicyRules", "begin_fill"]


class PolicyRules:
    """One fill's rules."""

    def __init__(self, exchange: Exchange, recipe: Recipe) -> None:
        self._exchange = exchange
        self._engine = exchange.app_context.engine
        self._recipe = recipe
        # Made before any thread of the handler can: two that made one each would lose the tags of one.
        self._collected = exchange.request_tags()
        # When the forward began, on the cache's clock.
        self.began = recipe.began
        # Whether clients choose by their query which keys there are.
        self.split = recipe.split
        # What is stored is for the same callers as the answer: all, or those of a partition.
        self.for_others = True
        self._unshared: str | None = None

    def seen_by(self, what: str) -> None:
        """Something of the app's that is handed the request makes the response: it is that caller's alone."""
        self._unshared = what

    def accept(
        self, status: int, headers: list[RawField], *, trailers: bool, stale: StoredResponse | None
    ) -> StartVerdict:
        """What becomes of a response that begins so."""
        policy = self._recipe.policy
        if status >= 500 and status not in policy.lifetimes:
            return Cover(stale) if stale is not None else Refuse("status", failed=True, outdated=False)
        reason = ("trailers" if trailers else None) or self._unshared
        reason = reason or refusal(
            status,
            headers,
            policy,
            partitioned=bool(policy.partition),
            most_bytes=self._engine.settings.max_body_bytes,
        )
        if reason is None:
            return Keep()
        return Refuse(reason, failed=False, outdated=outdates(status))

    def make(self, status: int, headers: list[RawField], body: bytes) -> Made | Refuse:
        """The complete response as it would be kept; or why it is not."""
        added = self._collected.snapshot()
        if has_too_many_tags(self._recipe, headers, added):
            return Refuse("too-many-tags", failed=False, outdated=True)
        predicate = self._recipe.policy.should_store
        reason = None if predicate is None else self._declined(predicate, status, headers, body)
        if reason is not None:
            return Refuse(reason, failed=False, outdated=outdates(status))
        stored, chosen = stored_response(
            self._recipe,
            status,
            headers,
            body,
            added,
            now=self._engine.now(),
            wall_now=self._exchange.app_context.cache.clock.wall(),
            draw=self._engine.draw(),
        )
        return Made(self._recipe.key, stored, chosen)

    def _declined(self, predicate: ShouldStore, status: int, headers: list[RawField], body: bytes) -> str | None:
        """Why the policy's own function has the response not stored; None where it has."""
        try:
            return None if is_to_be_stored(predicate, status, headers, body) else "should-store"
        except Exception as error:  # noqa: BLE001  # the author's function, which the answer can do without
            self._exchange.log_trouble("should_store failed, so the response is not stored", error)
            return "should-store-failed"

    def kept(self, stored: StoredResponse) -> None:
        """The response has been stored: the front lookup may find it from now on."""
        self._exchange.leads()

    def outdate(self) -> None:
        """The response is not kept, and speaks against what is stored: let go of that."""
        self._exchange.outdate(self._recipe.key, self._recipe.request_headers)

    def fields(self, form: Form, headers: list[RawField]) -> list[RawField]:
        """The fields that the client sees of a response that is not sent from what is stored."""
        match form:
            case Form.REFUSED:
                return headers
            case Form.UNKEPT:
                recipe = self._recipe
                return [*headers, *downstream_fields(headers, recipe.policy, private=recipe.private)]
            case Form.STREAMED:
                return streamed_fields(self._recipe, headers, self._collected.snapshot())

    def first_fields(self, headers: list[RawField], stored: StoredResponse) -> list[RawField]:
        """The fields of the answer that a response is stored from: what is stored, and those of its connection."""
        return [*stored.headers, *of_the_connection(headers, stored.headers)]

    def has_it(self, status: int, headers: list[RawField]) -> bool:
        """Conditions are answered from what is stored alone."""
        return False

    async def reply(self, send: Send, stored: StoredResponse, fields: list[RawField]) -> None:
        """Send a complete response with these fields, or the 304 that stands for it."""
        exchange = self._exchange
        await send_response(send, exchange.app_context, stored, exchange.client_headers, fields)

    def stands_in(self, stored: StoredResponse) -> bool:
        """Whether a stale response may stand in for a failure, now."""
        return self._engine.fallback(stored, self._engine.now()) is not None


def begin_fill(exchange: Exchange, wanted: Wanted, tags: tuple[str, ...], go: Go) -> Fill:
    """See what the handler answers as a fill of what is wanted, tagged with the policy's `tags`."""
    app_context, plan, policy, route = exchange.app_context, wanted.plan, wanted.policy, exchange.route
    # A refresh may be nobody's if no middleware on the way could ask who it is. Where the author has decided about the
    # front lookup, it says nothing of what is on the way.
    anonymous = plan.sharing is Sharing.PROVED and plan.front and app_context.front is None
    scope = wanted.request.scope
    # Most apps are in no other.
    inner = app_context.inner_paths(exchange.arrived, scope) if scope.get("root_path") else ()
    recipe = Recipe(
        key=wanted.key,
        policy=policy,
        tags=tags,
        declared=plan.headers,
        request_headers=wanted.headers,
        path=wanted.path,
        private=bool(policy.partition or policy.guards),
        anonymous=anonymous,
        stamp=exchange.stamp,
        began=app_context.engine.now(),
        emit_surrogate_key=app_context.emit_surrogate_key,
        split=wanted.split,
        route=route,
        trace=exchange.entered.trace,
        inner=inner,
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
        forget_parsed_fields(request)
    if request.scope.get("extensions"):
        hide_what_bypasses(request.scope)
