"""The lookup under `honour_headers`: before routing, by the request alone (RFC 9111 section 4)."""

from __future__ import annotations

from starlette.types import Receive, Scope, Send

from fastapi_cacheinval.core.conditional import CONDITIONAL_FIELDS
from fastapi_cacheinval.core.decide import Forward, Reason, Serve, ServeStale
from fastapi_cacheinval.core.outcome import Outcome, Result
from fastapi_cacheinval.core.rfc9111.asking import Asked, fields_forwarded, read_request
from fastapi_cacheinval.core.rfc9111.options import HeaderOptions
from fastapi_cacheinval.core.rfc9111.ranges import holds
from fastapi_cacheinval.core.rfc9111.response import SharedResponse
from fastapi_cacheinval.core.rfc9111.serving import answers, stands_in
from fastapi_cacheinval.core.stored import StoredResponse
from fastapi_cacheinval.engine.flights import Flight, Signal
from fastapi_cacheinval.engine.l2 import Led
from fastapi_cacheinval.engine.request_tags import Answering
from fastapi_cacheinval.engine.runtime import Runtime
from fastapi_cacheinval.framework.answering import status_fields, without_body
from fastapi_cacheinval.framework.app_context import AppContext
from fastapi_cacheinval.framework.exchange import FillSource, RefreshOrder
from fastapi_cacheinval.framework.reading import again, lead_in_background, pass_on
from fastapi_cacheinval.framework.rfc9111.answering import send_kept
from fastapi_cacheinval.framework.rfc9111.exchange import HeaderRead, has_policy
from fastapi_cacheinval.framework.rfc9111.filling import HeaderFill
from fastapi_cacheinval.framework.rfc9111.head import HeadUpdate
from fastapi_cacheinval.framework.rfc9111.resource import Resource, SearchRules
from fastapi_cacheinval.grammar.fields import first

__all__ = ["HeaderLookup"]

_OF_THE_CLIENT = frozenset({b"cache-control", b"pragma"})


def _has_content(asked: Asked) -> bool:
    length = first(asked.headers, b"content-length")
    return first(asked.headers, b"transfer-encoding") is not None or (length is not None and length.strip() != b"0")


class HeaderLookup:
    """One GET or HEAD: answered from what is stored, or forwarded and stored by what comes back."""

    def __init__(
        self,
        app_context: AppContext,
        runtime: Runtime,
        scope: Scope,
        receive: Receive,
        send: Send,
        options: HeaderOptions,
        rules: SearchRules,
        order: RefreshOrder | None = None,
    ) -> None:
        self.app_context = app_context
        self.engine = app_context.engine
        self.runtime = runtime
        self.scope = scope
        self._receive = receive
        self._client = send
        self.options = options
        self.rules = rules
        self.exchange = HeaderRead(app_context, runtime, scope, receive, send, order)
        self.asked = read_request(scope["method"], self.exchange.client_headers, options)
        self.resource = Resource(self.exchange, options, rules)
        self.send = without_body(send) if scope["method"] == "HEAD" else send
        self.deadline = self.exchange.began + app_context.engine.settings.collapse_timeout

    # -- finding --------------------------------------------------------------------------------

    def _find(self) -> tuple[SharedResponse | None, bytes, bool]:
        """The stored response that the request selects, the key of its forward, and whether only `Vary` missed."""
        collapse_key, vary_miss = self.resource.keys[-1], False
        for key in self.resource.keys:
            stored, variant = self.engine.find(key, self.asked.headers)
            if isinstance(stored, SharedResponse):
                return stored, variant, False
            if variant != key:
                collapse_key, vary_miss = variant, True
        return None, collapse_key, vary_miss

    def _find_part(self) -> SharedResponse | None:
        if self.asked.ranges is None:
            return None
        stored, _ = self.engine.find(self.resource.part_key, self.asked.headers)
        return stored if isinstance(stored, SharedResponse) and holds(self.asked, stored) else None

    def _judged(self, stored: SharedResponse | None) -> Serve | ServeStale | Forward:
        now = self.engine.now()
        stale_from = None if stored is None else self.engine.stale_from(stored, now)
        return answers(self.asked, stored, stale_from, now)

    # -- the request ----------------------------------------------------------------------------

    async def run(self) -> bool:
        """Answer the client; False, with nothing done, where the route has a policy of its own."""
        try:
            return await self._run()
        finally:
            if self.exchange.seen is not None:
                self.exchange.seen.left()

    async def _run(self) -> bool:
        detail = self._not_ours()
        if detail is not None:
            return await self._plainly(detail)
        overtaken = False
        while True:
            stored, collapse_key, vary_miss = self._find()
            reason = await self._served(stored)
            if reason is None or await self._served_part():
                return True
            if self._has_policy():
                return False
            reason = Reason.VARY_MISS if vary_miss else reason
            if self.asked.directives.only_if_cached:
                await self._refuse(reason)
                return True
            if self.asked.method == "HEAD":
                await self._forward_head(stored, reason)
                return True
            if not self._may_wait(stored, collapse_key):
                await self._forward(reason, None, stored)
                return True
            flights = self.runtime.flights
            flight = flights.under_way(collapse_key)
            if flight is None and overtaken and self._order(collapse_key, None):
                flight = flights.under_way(collapse_key)
            if flight is None:
                flight = flights.lead(collapse_key)
                await self._lead(flight, reason, stored)
                return True
            if await self._waited(flight, reason, stored):
                return True
            # A fill of this request's own would count as begun before a purge that came meanwhile.
            overtaken = self.exchange.mark != self.engine.replica.mark

    async def _lead(self, flight: Flight | None, reason: Reason, stored: SharedResponse | None) -> None:
        """Answer with what another replica has, or go forward."""
        led = await self._led(flight)
        if led.stored is not None and await self._served_found(led, reason):
            return
        stale = led.stale if isinstance(led.stale, SharedResponse) else None
        await self._forward(reason, flight, stored or stale)

    async def _led(self, flight: Flight | None) -> Led:
        """Before a forward that leads: what another replica has, or the right to forward."""
        l2 = self.runtime.l2
        if flight is None or l2 is None or flight.fill_lock is not None:
            return Led()
        if not l2.open:
            self.exchange.detail = "disconnected"
            return Led()

        def wanted(stored: StoredResponse) -> bool:
            return isinstance(stored, SharedResponse) and isinstance(self._judged(stored), Serve)

        with self.exchange.current():
            led = await l2.lead_flight(flight, self.resource.keys[-1], self.asked.headers, self.deadline, wanted)
        if led.stored is None and not led.refused:
            self.exchange.detail = "disconnected" if led.away else None
        return led

    async def _served_found(self, led: Led, reason: Reason) -> bool:
        """Answer with another replica's response, if it may still be handed over."""
        stored = led.stored
        if not isinstance(stored, SharedResponse) or not isinstance(self._judged(stored), Serve):
            return False
        result, why = (Result.COLLAPSED, reason) if led.waited else (Result.HIT, None)
        await self._answer(stored, result, why, tier="l2")
        return True

    async def _served(self, stored: SharedResponse | None) -> Reason | None:
        """Answer from what is stored, or say why the request goes forward."""
        match self._judged(stored):
            case Serve(usable):
                result = Result.HIT if self.engine.remaining(usable, self.engine.now()) >= 0 else Result.STALE
            case ServeStale(usable):
                result = Result.STALE
                self._order(usable.key, usable)
            case Forward(reason):
                return reason
        if isinstance(usable, SharedResponse):
            await self._answer(usable, result, None)
        return None

    async def _served_part(self) -> bool:
        part = self._find_part()
        match self._judged(part):
            case Serve() if part is not None:
                await self._answer(part, Result.HIT, None)
                return True
            case _:
                return False

    def _has_policy(self) -> bool:
        """Whether the route's own policy is asked instead; if not, this is the lookup."""
        if has_policy(self.app_context, self.scope):
            return True
        self.exchange.looks_up()
        return False

    def _not_ours(self) -> str | None:
        """Why the request is forwarded as it came, whatever is stored."""
        if not self.app_context.cache.enabled:
            return "disabled"
        if self.asked.for_origin:
            return "precondition"
        return "content" if _has_content(self.asked) else None

    async def _refuse(self, reason: Reason) -> None:
        """RFC 9111 section 5.2.1.7: a 504 for who wants nothing but what is stored."""
        outcome = Outcome(Result.MISS, reason=reason, detail="only-if-cached")
        self.exchange.told(outcome)
        headers = [(b"content-length", b"0"), *status_fields(self.app_context, outcome)]
        await self.send({"type": "http.response.start", "status": 504, "headers": headers})
        await self.send({"type": "http.response.body", "body": b""})

    def _may_wait(self, stored: SharedResponse | None, collapse_key: bytes) -> bool:
        """Whether another's forward would do, and this one for others."""
        asked = self.asked
        wanted = asked.directives
        own_way = wanted.no_cache or wanted.no_store or wanted.max_age is not None or wanted.min_fresh is not None
        if own_way or asked.authorized or (asked.ranges is not None and stored is None):
            return False
        return not self.runtime.flights.hit_for_miss(collapse_key)

    async def _waited(self, flight: Flight, reason: Reason, stored: SharedResponse | None) -> bool:
        """Wait for another's forward; True where the client has its answer, False to look again."""
        left = self.deadline - self.engine.now()
        alone = left <= 0 or self.runtime.flights.too_slow(flight)
        match Signal.GO if alone else await flight.wait(left):
            case SharedResponse() as landed:
                found, _, _ = self._find()
                if found is landed and isinstance(self._judged(landed), Serve):
                    await self._answer(landed, Result.COLLAPSED, reason)
                    return True
                return False
            case Signal.LEAD:
                await self._lead(flight, reason, stored)
            case Signal.FAILED if stored is not None and self._stands_in(stored):
                await self._answer(stored, Result.STALE, Reason.STALE, flight.failed_status)
            case Signal.GO | Signal.FAILED:
                await self._forward(reason, None, stored)
            case _:
                return False
        return True

    def _stands_in(self, stored: SharedResponse) -> bool:
        now = self.engine.now()
        return stands_in(self.asked, stored, self.engine.stale_from(stored, now), now)

    async def _answer(
        self,
        stored: SharedResponse,
        result: Result,
        reason: Reason | None,
        fwd_status: int | None = None,
        tier: str = "l1",
    ) -> None:
        outcome = self.engine.outcome(stored, result, reason, self.engine.now(), fwd_status, tier)
        self.exchange.told(outcome, stored)
        await send_kept(self.send, self.app_context, stored, self.asked, outcome)

    # -- going forward --------------------------------------------------------------------------

    async def _plainly(self, detail: str) -> bool:
        """Forward the request as it came, and keep nothing."""
        if self._has_policy():
            return False
        self.exchange.bypass(detail)
        await pass_on(self.exchange, self.scope)
        return True

    async def _forward(
        self, reason: Reason, flight: Flight | None, stored: SharedResponse | None, *, whole: bool = False
    ) -> None:
        """Forward as a fill; with the stored response's validators where it has some (RFC 9111 section 4.3.1).

        `whole` asks without any condition, because a 304 to the validators spoke of another response.
        """
        exchange = self.exchange
        usable = stored is not None and self.engine.stale_from(stored, self.engine.now()) is not None
        kept = stored if usable and not (self.asked.authorized and stored is not None and not stored.for_all) else None
        # Those who wait for a flight want the whole.
        for_part = self.asked.ranges is not None and kept is None and flight is None and not whole
        as_it_came = for_part or (flight is None and kept is None and exchange.refresh is None and not whole)
        condition = [] if kept is None or whole else kept.validators
        fill = HeaderFill(
            self.resource,
            self.asked,
            reason,
            flight=flight,
            stale=kept,
            validating=kept if condition else None,
            part_key=self.resource.part_key if for_part else None,
            unconfirmed=kept if whole and exchange.refresh is None else None,
        )
        # Made before any thread of the app can: two that made one each would lose the tags of one.
        exchange.request_tags()
        exchange.normalise(fields_forwarded(self.asked, None if as_it_came else condition, ranged=for_part))
        exchange.begin(fill)
        self.app_context.counters.forwarded(reason, None)
        try:
            await pass_on(exchange, self.scope)
        except BaseException:
            if fill.contradicted and flight is not None:
                flight.fail()
            raise
        if fill.contradicted:
            await self._forward_again(reason, flight, stored)

    async def _forward_again(self, reason: Reason, flight: Flight | None, stored: SharedResponse | None) -> None:
        """Ask for the whole, as a request of its own, within the same request of the client."""
        before = self.exchange
        scope = {**before.arrived, "headers": [*before.client_headers]}
        if "state" in scope:
            scope["state"] = dict(scope["state"])
        lookup = HeaderLookup(
            self.app_context,
            self.runtime,
            scope,
            self._receive,
            self._client,
            self.options,
            self.rules,
            before.refresh,
        )
        lookup.exchange.seen, lookup.exchange.detail = before.seen, before.detail
        answering = Answering(lookup.exchange)
        try:
            await lookup._forward(reason, flight, stored, whole=True)
        finally:
            answering.end()

    async def _forward_head(self, stored: SharedResponse | None, reason: Reason) -> None:
        """Forward as HEAD: its fields may freshen what is stored, or show that it is outdated (section 4.3.5)."""
        exchange = self.exchange
        exchange.sink = HeadUpdate(self.resource, self.asked, stored, reason)
        exchange.normalise(fields_forwarded(self.asked, None, ranged=False))
        exchange.tended = True
        self.app_context.counters.forwarded(reason, None)
        await pass_on(exchange, self.scope)

    # -- in the background ----------------------------------------------------------------------

    def _order(self, key: bytes, stored: StoredResponse | None) -> bool:
        """Forward once more in the background, leading the key; False where somebody is at it or there is no room."""
        varied = frozenset(name for name, _ in stored.vary) if stored is not None else frozenset[bytes]()
        dropped = CONDITIONAL_FIELDS | (_OF_THE_CLIENT - varied)
        scope = again(self.exchange.arrived, self.exchange.client_headers, dropped)

        async def forward(order: RefreshOrder) -> None:
            lookup = HeaderLookup(
                self.app_context, self.runtime, scope, FillSource(), order.hear, self.options, self.rules, order
            )
            await lookup.refresh()

        return lead_in_background(
            self.app_context, self.runtime, key, forward, newer_than=stored, cause=self.exchange.trace
        )

    async def refresh(self) -> None:
        """Forward as the leader of the flight that this was ordered for."""
        order = self.exchange.refresh
        assert order is not None
        stored, _, _ = self._find()
        await self._forward(Reason.STALE, order.flight, stored)
