"""The route lookup: what `cached()` asks for after the dependencies it names have run."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import assert_never

from starlette.requests import Request

from fastapi_cacheinval.core.decide import Decision
from fastapi_cacheinval.core.outcome import Outcome, Reason, Result
from fastapi_cacheinval.core.stored import StoredResponse
from fastapi_cacheinval.engine.coalescing import Answer, Coalescing, Go, Gone, Missed
from fastapi_cacheinval.framework.exchange import Exchange
from fastapi_cacheinval.framework.filling import Fill
from fastapi_cacheinval.framework.policy_rules import begin_fill
from fastapi_cacheinval.framework.refresh import lead_in_background, order_refresh
from fastapi_cacheinval.framework.responding import Annotated, Responder, Stored, bypassed
from fastapi_cacheinval.framework.route_target import Wanted, tags_of, wanted_of
from fastapi_cacheinval.framework.short_circuit import short_circuit
from fastapi_cacheinval.framework.timeouts import SLOW, Timed

__all__ = ["Course", "look_up"]


@dataclass(frozen=True, slots=True)
class Course:
    """What a route lookup has come to: what takes the response from here on.

    `unwind` is the status with which the request is unwound, None where the handler runs; `fill` is that responder
    where the response is seen as a fill.
    """

    responder: Responder
    unwind: int | None = None
    fill: Fill | None = None

    def unwound(self, request: Request) -> Exception:
        """What is to be raised then."""
        assert self.unwind is not None
        return short_circuit(request, self.unwind)


async def look_up(exchange: Exchange, request: Request, partition: tuple[object, ...]) -> Course:
    """Look up what a request asks of its route, whose plan is the exchange's.

    `partition` is what the policy's partition gives for it.
    """
    plan = exchange.plan
    assert plan is not None
    assert plan.policy is not None
    # Only who is handed the request can answer by its content; who announces some may be refused for its length.
    if await exchange.receive.has_content(request.scope, unannounced=plan.sees_request):
        return Course(bypassed(exchange, "content"))
    wanted = wanted_of(exchange, request, plan, plan.policy, partition)
    if not isinstance(wanted, Wanted):
        exchange.app_context.notices.note_partition(plan, partition, wanted)
        return Course(bypassed(exchange, "partition"))
    exchange.key, exchange.target = wanted.key, wanted.target
    return await Lookup(exchange, wanted).run()


class Lookup:
    """One route lookup: L1, then collapse, then L2, then the handler runs as a fill."""

    def __init__(self, exchange: Exchange, wanted: Wanted) -> None:
        self.exchange = exchange
        self.engine = exchange.app_context.engine
        self.wanted = wanted
        self.tags: tuple[str, ...] = ()
        self.entered = exchange.stamp.began
        self.deadline = self.entered + self.engine.settings.collapse_timeout
        # The key under which L2 is asked, and the request fields that select a variant.
        self.l2_key = wanted.key
        self.asked_headers = wanted.headers
        # Whether clients are not to wait for as long as they are.
        self._timed = wanted.policy.soft_seconds is not None or wanted.policy.hard_seconds is not None

    async def run(self) -> Course:
        """Say what takes the response, and whether the handler runs."""
        exchange, order = self.exchange, self.exchange.refresh
        if order is not None and order.forced:
            if not self._bind_tags():
                return self._bypass("invalid")
            return self._forward(Go(order.take(), None, Reason.STALE))
        coalescing = Coalescing(self.engine, exchange.runtime, self)
        found: Answer | Missed | Go | Gone = coalescing.look()
        if isinstance(found, Missed):
            if self.wanted.only_if_cached:
                # RFC 9111 section 5.2.1.7: the client would rather have a 504 than wait for the app.
                return self._gives_up(found.reason, "only-if-cached")
            if not self._bind_tags():
                return self._bypass("invalid")
            if self._timed:
                self.deadline = self.entered + self._patience(found.stored)
            with exchange.current():
                found = await coalescing.run(found)
        match found:
            case Answer():
                return self._answer(found)
            case Gone(reason):
                return self._gives_up(reason, "cancelled")
            case Go(hit_for_miss=True) if self.wanted.for_part:
                return self._bypass("range")
            case Go():
                late = self._late(found) if self._timed and found.flight is None else None
                return late or self._forward(found)
            case _:
                assert_never(found)

    def _gives_up(self, reason: Reason, detail: str) -> Course:
        outcome = Outcome(Result.MISS, reason=reason, detail=detail)
        return Course(Annotated(self.exchange, outcome), unwind=504)

    # -- what the loop asks ---------------------------------------------------------------------

    def find(self) -> tuple[StoredResponse | None, bytes, bool]:
        """What is stored for the request, the key of its forward, and whether only `Vary` missed."""
        stored, collapse_key = self.engine.find(self.wanted.key, self.wanted.headers)
        return stored, collapse_key, stored is None and collapse_key != self.wanted.key

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
        return self.exchange.overtaken()

    async def client_left(self) -> bool:
        """Whether the client is known to have left."""
        return await self.exchange.receive.client_left(self.exchange.arrived)

    def stands_in(self, stored: StoredResponse) -> bool:
        """Whether a stored response may stand in for a forward that failed."""
        return self.engine.fallback(stored, self.engine.now()) is not None

    def order_forward(self, key: bytes) -> bool:
        """Have the request forwarded once more in the background."""
        exchange = self.exchange
        again = exchange.app_context.mode.read_by_policy
        return lead_in_background(exchange.app_context, exchange.runtime, exchange.entered, again, key)

    # -- slow handlers --------------------------------------------------------------------------

    def _patience(self, stored: StoredResponse | None) -> float:
        """For how many seconds it may wait for another's forward."""
        policy, waits = self.wanted.policy, [self.engine.settings.collapse_timeout]
        if policy.soft_seconds is not None and stored is not None and self.stands_in(stored):
            waits.append(policy.soft_seconds)
        if policy.hard_seconds is not None:
            waits.append(policy.hard_seconds)
        return min(waits)

    def _late(self, go: Go) -> Course | None:
        """The answer in a forward's place, where another's has been too slow for a request that leads none."""
        policy, now = self.wanted.policy, self.engine.now()
        flight = self.exchange.runtime.flights.under_way(self.find()[1])
        waited = now - self.exchange.stamp.began
        behind = waited if flight is None else max(waited, now - flight.began)
        stale = self.engine.fallback(go.stale, now)
        if stale is not None and behind >= min(policy.soft_seconds or inf, policy.hard_seconds or inf):
            outcome = self.engine.outcome(stale, Result.STALE, Reason.STALE, now)._replace(detail=SLOW)
            return Course(Stored(self.exchange, stale, outcome), unwind=stale.status)
        if waited >= (policy.hard_seconds or inf):
            outcome = Outcome(Result.MISS, reason=go.reason, detail=SLOW)
            return Course(Annotated(self.exchange, outcome), unwind=504)
        return None

    # -- answers --------------------------------------------------------------------------------

    def _answer(self, answer: Answer) -> Course:
        stored = answer.stored
        if answer.refresh:
            order_refresh(self.exchange.app_context, self.exchange.runtime, self.exchange.entered, stored)
        self.exchange.leads()
        now = self.engine.now()
        outcome = self.engine.outcome(stored, answer.result, answer.reason, now, answer.fwd_status, answer.tier)
        return Course(Stored(self.exchange, stored, outcome), unwind=stored.status)

    def _bypass(self, detail: str) -> Course:
        return Course(bypassed(self.exchange, detail))

    def _bind_tags(self) -> bool:
        """Render the policy's tags for the validated parameters; False where they are not valid: the app says so."""
        tags = tags_of(self.wanted, self.exchange.app_context.counters.dropped_tag)
        if tags is None:
            return False
        self.tags = self.exchange.declared_tags = tags
        return True

    def _forward(self, go: Go) -> Course:
        """Let the handler run, and see its response as a fill; a refresh has a bound of its own, and no client."""
        fill = begin_fill(self.exchange, self.wanted, self.tags, go)
        if not self._timed or self.exchange.refresh is not None:
            return Course(fill, fill=fill)
        return Course(Timed(self.exchange, fill, self.wanted.policy, go), fill=fill)
