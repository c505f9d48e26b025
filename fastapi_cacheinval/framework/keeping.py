"""What becomes of a fill: its response is kept, refused or lost, and those who wait for it are told once.

The client has no part in this: `filling.py` sends it its answer.
"""

from __future__ import annotations

from starlette.types import Message

from fastapi_cacheinval.core.outcome import Outcome, Result
from fastapi_cacheinval.core.stored import StoredResponse
from fastapi_cacheinval.core.storing import content_length
from fastapi_cacheinval.engine.coalescing import Go
from fastapi_cacheinval.framework.exchange import Exchange
from fastapi_cacheinval.framework.fill_rules import FillRules, Made, Refuse
from fastapi_cacheinval.grammar.fields import RawHeaders, values
from fastapi_cacheinval.grammar.retry_after import parse_retry_after
from fastapi_cacheinval.ports.clock import Clock

__all__ = ["INCOMPLETE", "RAISED", "Keeping"]

INCOMPLETE = Refuse("incomplete", failed=False, outdated=False)
RAISED = "a forward raised; a stale response stood in for it"

# Seconds after which it is looked again whether anybody waits, at least.
_LOOK_AGAIN = 1.0


class Keeping:
    """Keeps one response, if its rules and the log allow that, and ends the flight that the forward leads.

    `go` says which flight that is, if any, and which response may stand in should the forward fail.
    """

    def __init__(self, exchange: Exchange, rules: FillRules, go: Go) -> None:
        self._exchange = exchange
        self._engine = exchange.app_context.engine
        self._rules = rules
        self._flight = go.flight
        self._go = go
        # Whether it is still to be decided what becomes of the response.
        self.open = True
        # Whether a response has begun that may be kept, and the length that it declares.
        self._begun = False
        self.length: int | None = None
        # When the client was found to have left, on the cache's clock.
        self._left_at: float | None = None
        self.given_up = False
        # Whether the client has had another answer, so that its leaving says nothing.
        self.goes_on = False
        # Whether a layer has ended what its route has not.
        self.broken = False
        # Whether the head has gone to the client, so that its fields cannot say any more why nothing is kept.
        self.head_gone = False

    def outcome(self, detail: str | None = None) -> Outcome:
        """How the answer came, for what is not stored."""
        return Outcome(Result.MISS, reason=self._go.reason, detail=detail)

    def begin(self, start: Message) -> None:
        """A response has begun that may be kept."""
        self._begun = True
        self.length = content_length(start["headers"])

    # -- kept -----------------------------------------------------------------------------------

    def keep(self, start: Message, body: bytes) -> tuple[StoredResponse | None, Outcome]:
        """Store the complete response, if no purge has overtaken it, and let the waiters have it."""
        now = self._engine.now()
        if self.broken:
            self.lose()
            return None, self.outcome(INCOMPLETE.detail)
        made: Made | Refuse = INCOMPLETE
        if self.length is None or self.length == len(body):
            made = self._rules.make(start["status"], start["headers"], body)
        if isinstance(made, Made):
            return made.stored, self.store(made, now)
        self.refuse(detail=made.detail, outdated=made.outdated)
        return None, self.outcome(made.detail)

    def store(self, made: Made, now: float) -> Outcome:
        """Keep what was made at a moment; a later reading of the clock would take a second off its lifetime."""
        engine, flight, stored = self._engine, self._flight, made.stored
        if engine.overtaken(stored, now):
            self._close("superseded", "superseded")
            if flight is not None:
                flight.supersede()
            return self.outcome("superseded")
        if not engine.keep(made.key, stored, made.chosen, now):
            self.refuse(detail="too-large", outdated=True)
            return self.outcome("too-large")
        self._rules.kept(stored)
        fresh = stored.fresh_until > now
        if fresh:
            self._share(made)
        else:
            self._share_no_more(stored, now)
        self._close("stored")
        if flight is not None and fresh:
            flight.land(stored)
        elif flight is not None:
            # To be validated for each: nobody gains by waiting.
            flight.refuse()
        if engine.stale_from(stored, now) is None:
            # Without a lease it took too long for those who come from now on.
            self._note("disconnected")
            return self.outcome("disconnected")
        ttl = int(stored.fresh_until - now)
        return self.outcome(self._go.detail)._replace(ttl=ttl, stored=True)

    def _share(self, made: Made) -> None:
        """Let the other replicas have it, and let requests wait for its key again."""
        runtime = self._exchange.runtime
        if runtime.l2 is not None:
            fill_lock = None if self._flight is None else self._flight.take_fill_lock()
            runtime.l2.keep(made.key, made.stored, fill_lock, split=self._rules.split)
        runtime.flights.unmark(made.stored.key)

    def _share_no_more(self, stored: StoredResponse, now: float) -> None:
        """What replicas share may be fresh by what the app has said before, and says no more."""
        before, l2 = self._go.stale, self._exchange.runtime.l2
        keys = {stored.key} if before is None else {stored.key, before.key}
        if l2 is not None and (before is None or len(keys) > 1 or before.fresh_until > now):
            for key in keys:
                l2.drop(key)

    # -- not kept -------------------------------------------------------------------------------

    def refuse(self, *, detail: str | None = None, outdated: bool = False) -> None:
        """Keep nothing, for the reason `detail`, and let nobody wait; `outdated` lets go of what is stored as well."""
        self._exchange.receive.release()
        if self.open:
            self._close("refused", detail)
            if self._flight is not None:
                self._flight.refuse()
        # The app's newer word may be meant for this caller alone.
        if outdated and self._rules.for_others and not self.given_up:
            self._rules.outdate()

    def take_back(self) -> None:
        """What was kept may not be whole after all."""
        self._rules.outdate()

    def lose(self, status: int | None = None) -> None:
        """The forward has failed: one more of those who wait may lead."""
        self._exchange.receive.release()
        if self.open:
            self._close("failed", INCOMPLETE.detail)
            if self._flight is not None:
                self._flight.fail(status)

    def leave_open(self) -> None:
        """Use nothing of the response, and leave the flight to the lookup, which asks for the whole."""
        self.open = False
        self._exchange.receive.release()

    def _close(self, outcome: str, detail: str | None = None) -> None:
        self.open = False
        if detail is not None:
            self._note(detail)
        exchange, app_context = self._exchange, self._exchange.app_context
        route = exchange.route
        app_context.counters.filled(self._engine.now() - self._rules.began, route, outcome)
        if outcome == "stored":
            app_context.log_once.well((RAISED, route))
        if exchange.refresh is not None:
            exchange.refresh.came(outcome)

    def _note(self, detail: str) -> None:
        """Count why nothing is kept, where the answer has not said it."""
        if self.head_gone and self._exchange.refresh is None:
            self._exchange.app_context.counters.details[detail] += 1

    def stand_in(self) -> StoredResponse | None:
        """What may stand in for this forward, should it fail."""
        stale = self._go.stale
        return stale if stale is not None and self._rules.stands_in(stale) else None

    def stood_in(self, stale: StoredResponse, status: int, headers: RawHeaders) -> None:
        """A stale response has stood in for an answer of this status: after an error others do so for a while."""
        if status >= 500 and self._exchange.refresh is None:
            after = parse_retry_after(values(headers, b"retry-after"), self.clock.wall())
            self._exchange.runtime.forward_failed(stale, after)

    # -- a client that leaves -------------------------------------------------------------------

    @property
    def clock(self) -> Clock:
        """The cache's clock."""
        return self._exchange.app_context.cache.clock

    def client_left(self) -> float:
        """For how many seconds the response is kept on for others, though its client has left; 0 where it is given up.

        An app that has not begun to answer may be waiting for nothing but this. What has begun is given the time that
        others would wait for it: a request that comes later forwards for itself.
        """
        timeout, now = self._engine.settings.collapse_timeout, self.clock.now()
        if self._left_at is None:
            self._left_at = now
        left = self._left_at + timeout - now
        waited_for = self._flight is not None and self._flight.waiting > 0
        if not self.given_up and (not self.open or self.goes_on or waited_for or (self._begun and left > 0)):
            return left if left > 0 else max(timeout, _LOOK_AGAIN)
        self.given_up = True
        self.lose()
        return 0.0
