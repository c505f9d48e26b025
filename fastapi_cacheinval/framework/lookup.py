"""The route lookup: what `cached()` asks for after the dependencies it names have run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, assert_never

from starlette.requests import Request

from fastapi_cacheinval.core.conditional import CONDITIONAL_FIELDS
from fastapi_cacheinval.core.decide import Decision, Reason
from fastapi_cacheinval.core.keys import cache_key, kept_query, partition_digest
from fastapi_cacheinval.core.outcome import Outcome, Result
from fastapi_cacheinval.core.policy import CachePolicy
from fastapi_cacheinval.core.recipe import Recipe
from fastapi_cacheinval.core.stored import StoredResponse
from fastapi_cacheinval.engine.coalescing import Answer, Coalescing, Go, Missed
from fastapi_cacheinval.framework.answering import SENT_PAST
from fastapi_cacheinval.framework.exchange import Exchange
from fastapi_cacheinval.framework.filling import Fill
from fastapi_cacheinval.framework.policy_rules import PolicyRules
from fastapi_cacheinval.framework.responding import Annotated, Responder, Stored, bypassed
from fastapi_cacheinval.framework.route_target import front_target, given_of_path, target_as_sent
from fastapi_cacheinval.framework.short_circuit import answers_by_the_error_alone, sent_without_the_request
from fastapi_cacheinval.grammar.cache_control import parse
from fastapi_cacheinval.grammar.fields import RawHeaders, combined, first, values
from fastapi_cacheinval.ports.store import Target
from fastapi_cacheinval.routes.bindings import InvalidParameter
from fastapi_cacheinval.routes.fastapi_private import on_end
from fastapi_cacheinval.routes.plan import RoutePlan, Sharing

__all__ = ["Lookup", "Orders", "Verdict"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a route lookup has come to: what takes the response from here on.

    `unwind` is the status to unwind the request with, None where the handler runs; `fill` is that
    responder where the response is seen as a fill.
    """

    responder: Responder
    unwind: int | None = None
    fill: Fill | None = None


class Orders(Protocol):
    """Where a lookup orders forwards in the background."""

    def order_refresh(self, stored: StoredResponse) -> None:
        """Have a stored response refreshed, if nobody is at it."""
        ...

    def order_forward(self, key: bytes) -> bool:
        """Have the request forwarded once more, as the leader of the key; whether it is."""
        ...


class Lookup:
    """One route lookup: L1, then collapse, then the handler runs as a fill."""

    def __init__(
        self,
        exchange: Exchange,
        orders: Orders,
        request: Request,
        plan: RoutePlan,
        policy: CachePolicy,
        partition: tuple[Any, ...],
    ) -> None:
        app_context, scope = exchange.app_context, request.scope
        settings = app_context.engine.settings
        self.exchange = exchange
        self.orders = orders
        self.engine = app_context.engine
        self.request = request
        self.plan = plan
        self.policy = policy
        # What other middleware outside ours set as the root path is no part of what a route sees.
        root_path = app_context.root_of(exchange.arrived)
        self.path = app_context.below(root_path, scope["path"])
        self.headers: list[tuple[bytes, bytes]] = [*scope["headers"]]
        query = kept_query(scope.get("query_string", b""), plan.query)
        self.split = bool(query)
        origin = scope.get("scheme", "http"), combined(self.headers, b"host") or b""
        self.key = cache_key(
            app_context.key_parts("policy", origin, root_path, self.path)._replace(
                sent=target_as_sent(plan, scope),
                route=plan.identity,
                given=given_of_path(plan, scope),
                query=query,
                partition_of=plan.partition_of,
                partition=partition_digest(partition, app_context.cache.secret) if partition else b"",
                local=app_context.local_part(plan.identity, plan.ordinal, plan.epoch, plan.nameless),
            )
        )
        self.declared = plan.headers
        self.target: Target | None = exchange.leading(front_target(exchange, scope, plan), self.key)
        self.tags: tuple[str, ...] = ()
        self.entered = exchange.began
        self.deadline = self.entered + settings.collapse_timeout

    async def run(self) -> Verdict:
        """Say what takes the response, and whether the handler runs."""
        exchange = self.exchange
        if exchange.refresh is not None:
            if not self._bind_tags():
                return self._bypass("invalid")
            return self._forward(Go(exchange.refresh.take(), None, Reason.STALE))
        coalescing = Coalescing(self.engine, exchange.runtime, self)
        found: Answer | Missed | Go = coalescing.look()
        if isinstance(found, Missed):
            if self._only_if_cached():
                # RFC 9111 section 5.2.1.7: the client would rather have a 504 than wait for the app.
                outcome = Outcome(Result.MISS, reason=found.reason, detail="only-if-cached")
                return Verdict(Annotated(exchange, outcome), unwind=504)
            if not self._bind_tags():
                return self._bypass("invalid")
            with exchange.current():
                found = await coalescing.run(found)
        match found:
            case Answer():
                return self._answer(found)
            case Go(hit_for_miss=True) if first(self.headers, b"range") is not None:
                return self._bypass("range")
            case Go():
                return self._forward(found)
            case _:
                assert_never(found)

    # -- what the loop asks ---------------------------------------------------------------------

    @property
    def l2_key(self) -> bytes:
        """The key under which the shared tier is asked."""
        return self.key

    @property
    def asked_headers(self) -> RawHeaders:
        """The request fields that select a variant."""
        return self.headers

    def find(self) -> tuple[StoredResponse | None, bytes, bool]:
        """What is stored for the request, the key of its forward, and whether only `Vary` missed."""
        stored, collapse_key = self.engine.find(self.key, self.headers)
        return stored, collapse_key, stored is None and collapse_key != self.key

    def judge(self, stored: StoredResponse | None) -> Decision:
        """What a stored response is good for, by the policy it was made with."""
        return self.engine.decide(stored, self.engine.now(), self.entered)

    def may_wait(self, stored: StoredResponse | None) -> bool:
        """Request directives are ignored: any forward of the key would do."""
        return True

    def fenced(self) -> bool:
        """Whether a tag of the policy is fenced."""
        return self.engine.replica.fenced(self.tags)

    def overtaken(self) -> bool:
        """Whether something was purged since the request entered."""
        return self.exchange.mark != self.engine.replica.mark

    def stands_in(self, stored: StoredResponse) -> bool:
        """Whether a stored response may stand in for a forward that failed."""
        return self.engine.fallback(stored, self.engine.now()) is not None

    def order_forward(self, key: bytes) -> bool:
        """Have the request forwarded once more in the background."""
        return self.orders.order_forward(key)

    # -- answers --------------------------------------------------------------------------------

    def _answer(self, answer: Answer) -> Verdict:
        stored = answer.stored
        if answer.refresh:
            self.orders.order_refresh(stored)
        if self.target is not None:
            self.engine.remember_target(self.target, self.key)
        now = self.engine.now()
        outcome = self.engine.outcome(stored, answer.result, answer.reason, now, answer.fwd_status, answer.tier)
        return Verdict(Stored(self.exchange, stored, outcome), unwind=stored.status)

    def _bypass(self, detail: str) -> Verdict:
        return Verdict(bypassed(self.exchange, detail))

    def _only_if_cached(self) -> bool:
        asked = values(self.headers, b"cache-control")
        return bool(asked) and parse(asked).only_if_cached

    # -- going forward --------------------------------------------------------------------------

    def _bind_tags(self) -> bool:
        """Render the policy's tags for the validated parameters; False where they are not valid: the app says so."""
        try:
            bound = {
                name: self.plan.bindings[name].value(self.request)
                for template in self.policy.templates
                for name in template.names
            }
        except InvalidParameter:
            return False
        tags: list[str] = []
        for template in self.policy.templates:
            tag = template.render(bound)
            if tag is None:
                self.exchange.app_context.counters.dropped_tag()
            else:
                tags.append(tag)
        self.tags = tuple(tags)
        return True

    def _forward(self, go: Go) -> Verdict:
        """Let the handler run, and see its response as a fill."""
        exchange, app_context = self.exchange, self.exchange.app_context
        # Made before any thread of the handler can: two that made one each would lose the tags of one.
        exchange.request_tags()
        recipe = Recipe(
            key=self.key,
            policy=self.policy,
            tags=self.tags,
            declared=self.declared,
            request_headers=self.headers,
            path=self.path,
            private=bool(self.policy.partition or self.policy.guards),
            front=self._anonymous(),
            stamp=exchange.stamp,
            began=self.engine.now(),
            emit_surrogate_key=app_context.emit_surrogate_key,
            split=self.split,
            route=exchange.route,
            trace=exchange.trace,
        )
        app_context.counters.forwarded(go.reason, exchange.route)
        rules = PolicyRules(exchange, recipe, self.target)
        if self.plan.sharing is not Sharing.DECLARED:
            self._watch(rules)
        self._normalise()
        fill = Fill(exchange, rules, go)
        return Verdict(fill, fill=fill)

    def _watch(self, rules: PolicyRules) -> None:
        """No signature says what is read by those who are handed the request after the handler."""
        scope = self.request.scope

        def raised(error: BaseException) -> None:
            if not answers_by_the_error_alone(scope, error):
                rules.seen_by("exception-handler")

        def made(response: object) -> None:
            if not sent_without_the_request(response):
                rules.seen_by("own-response")

        on_end(scope, raised, made)

    def _anonymous(self) -> bool:
        """Whether a refresh may be nobody's: proved shared, and no middleware on the way could ask who it is."""
        # Where the author has decided about the front lookup, it says nothing of what is on the way.
        return self.plan.sharing is Sharing.PROVED and self.plan.front and self.exchange.app_context.front is None

    def _normalise(self) -> None:
        """Make the handler see a plain GET for the whole response."""
        scope = self.request.scope
        if any(name in CONDITIONAL_FIELDS for name, _ in self.headers):
            scope["headers"] = [pair for pair in self.headers if pair[0] not in CONDITIONAL_FIELDS]
            # The request keeps what it has parsed of them.
            self.request.__dict__.pop("_headers", None)
        extensions = scope.get("extensions")
        if extensions and not SENT_PAST.isdisjoint(extensions):
            scope["extensions"] = {name: value for name, value in extensions.items() if name not in SENT_PAST}
