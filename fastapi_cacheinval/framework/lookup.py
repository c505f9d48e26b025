"""The route lookup: what `cached()` asks for after the dependencies it names have run."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.types import Scope

from fastapi_cacheinval.core.conditional import CONDITIONAL_FIELDS
from fastapi_cacheinval.core.decide import Bypass, Forward, Reason, Serve, ServeStale
from fastapi_cacheinval.core.keys import cache_key, encode, kept_query, partition_digest, sent_path
from fastapi_cacheinval.core.outcome import Outcome, Result
from fastapi_cacheinval.core.policy import CachePolicy
from fastapi_cacheinval.core.recipe import Recipe
from fastapi_cacheinval.core.stored import StoredResponse
from fastapi_cacheinval.engine.flights import Flight, Signal
from fastapi_cacheinval.framework.answering import SENT_PAST
from fastapi_cacheinval.framework.exchange import Exchange
from fastapi_cacheinval.framework.filling import Fill
from fastapi_cacheinval.framework.short_circuit import (
    answers_by_the_error_alone,
    sent_without_the_request,
    short_circuit,
)
from fastapi_cacheinval.grammar.cache_control import parse
from fastapi_cacheinval.grammar.fields import combined, first, values
from fastapi_cacheinval.ports.store import Target
from fastapi_cacheinval.routes.bindings import InvalidParameter
from fastapi_cacheinval.routes.fastapi_private import on_end
from fastapi_cacheinval.routes.plan import RoutePlan, Sharing

__all__ = ["Lookup", "raw_target"]


def raw_target(scope: Scope, host: bytes | None) -> Target:
    """What the front lookup finds a stored response by, as the server gave it."""
    return (
        host,
        scope["path"],
        scope.get("query_string", b""),
        scope.get("scheme", "http"),
        scope.get("root_path", ""),
    )


def _front_target(exchange: Exchange, scope: Scope, plan: RoutePlan) -> Target | None:
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


def _given(plan: RoutePlan, scope: Scope) -> tuple[bytes, ...]:
    """What the route is given of the path that the path does not hold."""
    given = scope.get("path_params", {})
    return tuple(
        [b"+" + str(given[name]).encode("utf-8", "surrogatepass") if name in given else b"" for name in plan.elsewhere]
    )


def _sent(plan: RoutePlan, scope: Scope) -> bytes:
    """The path as the raw request has it, where the route is handed that: it tells spellings of one path apart."""
    if not plan.sees_request:
        return b""
    seen = (str(scope.get("root_path", "")), scope["path"])
    return encode((*(part.encode("utf-8", "surrogatepass") for part in seen), sent_path(scope.get("raw_path"), b"")))


class Lookup:
    """One route lookup: L1, then collapse, then the handler runs as a fill."""

    def __init__(
        self, exchange: Exchange, request: Request, plan: RoutePlan, policy: CachePolicy, partition: tuple[Any, ...]
    ) -> None:
        app_context, scope = exchange.app_context, request.scope
        settings = app_context.engine.settings
        self.exchange = exchange
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
                sent=_sent(plan, scope),
                route=plan.identity,
                given=_given(plan, scope),
                query=query,
                partition_of=plan.partition_of,
                partition=partition_digest(partition, app_context.cache.secret) if partition else b"",
                local=app_context.local_part(plan.identity, plan.ordinal, plan.epoch),
            )
        )
        self.declared = plan.headers
        self.target: Target | None = exchange.leading(_front_target(exchange, scope, plan), self.key)
        self.fill: Fill | None = None
        self.deadline = exchange.began + settings.collapse_timeout

    async def run(self) -> None:
        """Answer and raise, or leave a fill behind and return so that the handler runs."""
        exchange, engine = self.exchange, self.engine
        if exchange.refresh is not None:
            tags = self._tags()
            if tags is not None:
                self._forward(tags, Reason.STALE, exchange.refresh.flight, None)
            return
        tags = None
        overtaken = False
        while True:
            stored, collapse_key = engine.find(self.key, self.headers)
            reason = self._served(stored, vary_miss=stored is None and collapse_key != self.key)
            if tags is None:
                self._refuse_only_if_cached(reason)
                tags = self._tags()
                if tags is None:
                    return
            flights = exchange.runtime.flights
            if flights.hit_for_miss(collapse_key):
                if first(self.headers, b"range") is not None:
                    exchange.bypass("range")
                    return
                self._forward(tags, reason, None, stored)
                return
            flight = flights.under_way(collapse_key)
            if flight is None and overtaken and exchange.order_forward(collapse_key):
                flight = flights.under_way(collapse_key)
            if flight is None:
                flight = flights.lead(collapse_key)
                stored = await self._led(flight, tags, reason, stored)
                self._forward(tags, reason, flight, stored)
                return
            if await self._waited(flight, tags, reason, stored):
                return
            # A fill of this request's own would count as begun before a purge that came meanwhile: good for
            # nobody else. One that begins now serves all who still wait, instead of each leading in turn.
            overtaken = exchange.mark != engine.replica.mark

    async def _led(
        self, flight: Flight | None, tags: tuple[str, ...], reason: Reason, stale: StoredResponse | None
    ) -> StoredResponse | None:
        """Before a forward that leads: answer with what another replica has, which raises, or be the one to forward.

        Gives what may stand in should the forward fail.
        """
        exchange, engine = self.exchange, self.engine
        l2 = exchange.runtime.l2
        if flight is None or l2 is None:
            return stale
        if not l2.open or engine.replica.fenced(tags):
            exchange.detail = None if l2.open else "disconnected"
            return stale
        with exchange.current():
            led = await l2.lead_flight(flight, self.key, self.headers, self.deadline, self._would_serve)
        if led.stored is not None:
            # Before those who wait for it are run.
            flight.l2 = not led.waited
            self._served(led.stored, vary_miss=False, collapsed=reason if led.waited else None, tier="l2")
        elif not led.refused:
            exchange.detail = "disconnected" if led.away else None
        return stale or led.stale

    def _would_serve(self, stored: StoredResponse) -> bool:
        return isinstance(self.engine.decide(stored, self.engine.now()), Serve | ServeStale)

    async def _waited(
        self, flight: Flight, tags: tuple[str, ...], reason: Reason, stored: StoredResponse | None
    ) -> bool:
        """Wait for another's forward; True where this request then goes forward itself, False to look again."""
        exchange, engine = self.exchange, self.engine
        left = self.deadline - engine.now()
        alone = left <= 0 or exchange.runtime.flights.too_slow(flight) or engine.replica.fenced(tags)
        match Signal.GO if alone else await flight.wait(left):
            case StoredResponse() as landed:
                found, _ = engine.find(self.key, self.headers)
                if found is landed and flight.l2:
                    self._served(landed, vary_miss=False, tier="l2")
                elif found is landed:
                    self._serve_collapsed(landed, reason)
                return False
            case Signal.LOOK_AGAIN:
                return False
            case Signal.LEAD:
                if flight.fill_lock is None:
                    # Who led before was cancelled before it could have the right to forward in the cluster.
                    stored = await self._led(flight, tags, reason, stored)
                self._forward(tags, reason, flight, stored)
            case Signal.GO:
                self._forward(tags, reason, None, stored)
            case Signal.FAILED:
                stale = engine.fallback(stored, engine.now())
                if stale is not None:
                    self._answer(stale, Result.STALE, Reason.STALE, flight.failed_status)
                self._forward(tags, reason, None, None)
        return True

    # -- answers --------------------------------------------------------------------------------

    def _served(
        self, stored: StoredResponse | None, *, vary_miss: bool, collapsed: Reason | None = None, tier: str = "l1"
    ) -> Reason:
        """Answer from what is stored, which raises, or say why the request goes forward.

        `collapsed` is why it would have gone forward, where another replica's forward was waited for.
        """
        now = self.engine.now()
        match self.engine.decide(stored, now):
            case Serve(usable, refresh):
                if refresh:
                    self.exchange.order_refresh(usable)
                self._remember()
                self._answer(usable, Result.HIT if collapsed is None else Result.COLLAPSED, collapsed, tier=tier)
            case ServeStale(usable):
                self.exchange.order_refresh(usable)
                self._remember()
                self._answer(usable, Result.STALE, None, tier=tier)
            case Forward(reason):
                return Reason.VARY_MISS if vary_miss else reason
            case Bypass():
                pass
        return Reason.BYPASS

    def _serve_collapsed(self, landed: StoredResponse, reason: Reason) -> None:
        match self.engine.decide(landed, self.engine.now()):
            case Serve() | ServeStale():
                self._answer(landed, Result.COLLAPSED, reason)
            case _:
                pass

    def _answer(
        self,
        stored: StoredResponse,
        result: Result,
        reason: Reason | None,
        fwd_status: int | None = None,
        tier: str = "l1",
    ) -> None:
        outcome = self.engine.outcome(stored, result, reason, self.engine.now(), fwd_status, tier)
        self.exchange.answer(stored, outcome)
        raise short_circuit(self.request, stored.status)

    def _remember(self) -> None:
        if self.target is not None:
            self.engine.remember_target(self.target, self.key)

    def _refuse_only_if_cached(self, reason: Reason) -> None:
        """RFC 9111 section 5.2.1.7: the client would rather have a 504 than wait for the app."""
        asked = values(self.headers, b"cache-control")
        if asked and parse(asked).only_if_cached:
            self.exchange.annotate(Outcome(Result.MISS, reason=reason, detail="only-if-cached"))
            raise short_circuit(self.request, 504)

    # -- going forward --------------------------------------------------------------------------

    def _tags(self) -> tuple[str, ...] | None:
        """The policy's tags for the validated parameters; None where they are not valid: the app says so."""
        try:
            bound = {
                name: self.plan.bindings[name].value(self.request)
                for template in self.policy.templates
                for name in template.names
            }
        except InvalidParameter:
            self.exchange.bypass("invalid")
            return None
        tags: list[str] = []
        for template in self.policy.templates:
            tag = template.render(bound)
            if tag is None:
                self.exchange.app_context.counters.dropped_tag()
            else:
                tags.append(tag)
        return tuple(tags)

    def _forward(
        self, tags: tuple[str, ...], reason: Reason, flight: Flight | None, stale: StoredResponse | None
    ) -> None:
        """Let the handler run, seen as a fill from here on."""
        exchange, app_context = self.exchange, self.exchange.app_context
        # Made before any thread of the handler can: two that made one each would lose the tags of one.
        exchange.request_tags()
        recipe = Recipe(
            key=self.key,
            policy=self.policy,
            tags=tags,
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
        app_context.counters.forwarded(reason, exchange.route)
        fill = self.fill = exchange.sink = Fill(
            exchange, recipe, reason, flight=flight, stale=stale, target=self.target
        )
        if self.plan.sharing is not Sharing.DECLARED:
            self._watch(fill)
        self._normalise()

    def _watch(self, fill: Fill) -> None:
        """No signature says what is read by those who are handed the request after the handler."""
        scope = self.request.scope

        def raised(error: BaseException) -> None:
            if not answers_by_the_error_alone(scope, error):
                fill.seen_by("exception-handler")

        def made(response: object) -> None:
            if not sent_without_the_request(response):
                fill.seen_by("own-response")

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
