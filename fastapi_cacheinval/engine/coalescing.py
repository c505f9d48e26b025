"""One request on its way to an answer: look, wait for another's forward, or be the one to forward (RFC 9111 section 4).

The loop is the same for every kind of request; an `Asker` says what is particular to one. Its rules:

- A request looks before it waits, and again whenever what it waited for does not answer it.
- A response that could not be shared a moment ago, and one that is behind a fence, is waited for by nobody.
- A request leads at most one flight, and asks the tier that replicas share before it forwards.
- A forward that began so long before the request that its result could not be used is not waited for: the request leads
  the next one. So, without a lease too, there is one forward for each key and bound.
- A request whose client has left meanwhile goes nowhere.
- A waiter that a purge has overtaken does not lead: a new forward in the background serves all who still wait. Where
  its result is not for the request that it was made for, nobody waits for that key any longer. After two that purges
  have overtaken, and half a second, a request goes by itself.
"""

from __future__ import annotations

from dataclasses import dataclass

from fastapi_cacheinval.core.decide import Forward, Serve, ServeStale
from fastapi_cacheinval.core.outcome import Reason, Result
from fastapi_cacheinval.core.stored import StoredResponse
from fastapi_cacheinval.engine.asker import Asker
from fastapi_cacheinval.engine.engine import Engine
from fastapi_cacheinval.engine.fill_locks import Answered, Granted, Refused, Unavailable
from fastapi_cacheinval.engine.flights import Flight, Signal
from fastapi_cacheinval.engine.runtime import Runtime

__all__ = ["Answer", "Coalescing", "Go", "Gone", "Missed"]

# Seconds that another replica's forward was waited for, after which it is looked whether the client is still there.
_LONG_WAIT = 0.1
# Forwards that purges have overtaken, and seconds of waiting, after both of which a request waits for no other.
_MOST_SUPERSEDED = 2
_LONGEST_SUPERSEDED = 0.5


@dataclass(frozen=True, slots=True)
class Missed:
    """Nothing that is stored answers the request.

    `stored` is what was found and may still be validated, or stand in for a failure; `key` is the key of the forward.
    """

    stored: StoredResponse | None
    key: bytes
    reason: Reason


@dataclass(frozen=True, slots=True)
class Answer:
    """A stored response answers the request; `refresh` asks for a refresh in the background.

    `reason` is why the request would have gone forward, where another's forward was waited for; `fwd_status` is what
    came back where the response stands in for a failure.
    """

    stored: StoredResponse
    result: Result
    reason: Reason | None = None
    tier: str = "l1"
    fwd_status: int | None = None
    refresh: bool = False


@dataclass(frozen=True, slots=True)
class Go:
    """The request goes forward.

    It leads `flight`, or goes side by side with others where that is None. `stale` is as in `Missed`; `detail` says
    that L2 could not be asked; `hit_for_miss` that the key's responses could not be shared a moment ago.
    """

    flight: Flight | None
    stale: StoredResponse | None
    reason: Reason
    detail: str | None = None
    hit_for_miss: bool = False


@dataclass(frozen=True, slots=True)
class Gone:
    """The client has left while the request waited: nobody is to be answered. `reason` is as in `Missed`."""

    reason: Reason


class Coalescing:
    """The loop for one request."""

    def __init__(self, engine: Engine, runtime: Runtime, asker: Asker) -> None:
        self._engine = engine
        self._runtime = runtime
        self._flights = runtime.flights
        self._l2 = runtime.l2
        self._asker = asker

    def look(self) -> Answer | Missed:
        """Look once at what is stored here."""
        stored, key, vary_miss = self._asker.find()
        found = self._usable(stored)
        if isinstance(found, Answer):
            return found
        return Missed(stored, key, Reason.VARY_MISS if vary_miss else found)

    async def look_further(self, missed: Missed) -> Answer | Missed:
        """The same with L2, for a request that waits for nobody's forward."""
        if missed.stored is not None or self._l2 is None or self._asker.fenced():
            return missed
        await self._l2.look(self._asker.l2_key, self._asker.asked_headers)
        return self.look()

    async def run(self, missed: Missed) -> Answer | Go | Gone:
        """Wait for another's forward, or find that this request has to go forward."""
        asker, flights, overtaken, waited = self._asker, self._flights, False, False
        superseded = 0
        began = self._engine.now()
        while True:
            if flights.hit_for_miss(missed.key):
                return Go(None, missed.stored, missed.reason, hit_for_miss=True)
            if not asker.may_wait(missed.stored):
                return Go(None, missed.stored, missed.reason)
            flight = flights.under_way(missed.key)
            if flight is not None and self._too_old(flight):
                flight = None
            ordered = flight is None and overtaken and asker.order_forward(missed.key)
            if ordered:
                flight = flights.under_way(missed.key)
            if flight is None:
                found = await self._lead(flights.lead(missed.key, asker.entered), missed, gives_back=not overtaken)
            else:
                found = await self._wait(flight, missed)
            waited = waited or flight is not None or self._engine.now() - began >= _LONG_WAIT
            if waited and not isinstance(found, Answer) and await self._nobody_waits(found):
                return Gone(missed.reason)
            if found is not None:
                return found
            # A fill of this request's own would count as begun before a purge that came meanwhile: good for
            # nobody else. One that begins now serves all who still wait, instead of each leading in turn.
            overtaken = asker.overtaken()
            looked = self.look()
            if isinstance(looked, Answer):
                return looked
            missed = looked
            superseded += flight is not None and not flight.landed
            if superseded >= _MOST_SUPERSEDED and self._engine.now() - began >= _LONGEST_SUPERSEDED:
                # Purges come faster than the app answers: the next would be overtaken as well.
                return Go(None, missed.stored, missed.reason)
            if ordered and flight is not None and flight.landed:
                # Such as under `Vary` on a field that was left out: the next would not be for this request either.
                flights.mark(missed.key)

    async def _nobody_waits(self, go: Go | None) -> bool:
        """Whether the client has left; then the flight that the request was to lead is another's."""
        flight = None if go is None else go.flight
        try:
            left = await self._asker.client_left()
        except BaseException:
            if flight is not None:
                flight.pass_on()
            raise
        if left and flight is not None:
            flight.pass_on()
        return left

    def _too_old(self, flight: Flight) -> bool:
        """Whether what a forward gives would be too old for this request, because no lease vouches for it."""
        engine = self._engine
        if engine.replica.live(engine.now()):
            return False
        return self._asker.entered - flight.entered >= engine.settings.staleness_bound

    def _usable(
        self, stored: StoredResponse | None, *, collapsed: Reason | None = None, tier: str = "l1"
    ) -> Answer | Reason:
        """The answer that a stored response makes, or why the request goes forward; `collapsed` is `Answer.reason`."""
        match self._asker.judge(stored):
            case Serve(usable, refresh):
                fresh = self._engine.remaining(usable, self._engine.now()) >= 0
                result = Result.HIT if fresh else Result.STALE
                if collapsed is not None:
                    result = Result.COLLAPSED
                return Answer(usable, result, collapsed, tier, refresh=refresh)
            case ServeStale(usable):
                return Answer(usable, Result.STALE, tier=tier, refresh=True)
            case Forward(reason):
                if stored is None or reason is not Reason.STALE:
                    return reason
                # It stands in without a forward, because one failed a moment ago.
                if self._runtime.forwards_pause(stored) and self._asker.stands_in(stored):
                    return Answer(stored, Result.STALE, tier=tier)
                return reason

    async def _lead(self, flight: Flight | None, missed: Missed, *, gives_back: bool = False) -> Answer | Go | None:
        """Before a forward that leads: answer with what another replica has, or be the one to forward.

        None to look again, where it `gives_back` the right to forward, for a purge has come while it waited for that.
        """
        asker, l2, stale, reason = self._asker, self._l2, missed.stored, missed.reason
        if flight is None or l2 is None:
            return Go(flight, stale, reason)
        if not l2.open:
            return Go(flight, stale, reason, "disconnected")
        if asker.fenced():
            return Go(flight, stale, reason)
        match await l2.lead_flight(flight, asker.l2_key, asker.asked_headers, asker.deadline, self._wanted):
            case Answered(stored, waited):
                answer = self._usable(stored, collapsed=reason if waited else None, tier="l2")
                return answer if isinstance(answer, Answer) else Go(flight, stale, reason)
            case Granted(waited=True) if gives_back and asker.overtaken() and not asker.fenced():
                flight.supersede()
                return None
            case Granted(_, other) | Refused(other):
                return Go(flight, stale or other, reason)
            case Unavailable(other, away):
                return Go(flight, stale or other, reason, self._why_away() if away else None)

    def _why_away(self) -> str:
        """Out of touch with the log, or only with the server that has this key."""
        return "l2-unavailable" if self._l2 is not None and self._l2.open else "disconnected"

    def _wanted(self, stored: StoredResponse) -> bool:
        return isinstance(self._asker.judge(stored), Serve | ServeStale)

    async def _wait(self, flight: Flight, missed: Missed) -> Answer | Go | None:
        """Wait for another's forward; None to look again."""
        asker = self._asker
        left = asker.deadline - self._engine.now()
        alone = left <= 0 or self._flights.too_slow(flight) or asker.fenced()
        match Signal.GO if alone else await flight.wait(left):
            case StoredResponse() as landed:
                return self._landed(flight, landed, missed.reason)
            case Signal.LOOK_AGAIN:
                return None
            case Signal.LEAD:
                flight.entered = asker.entered
                if flight.fill_lock is not None:
                    return Go(flight, missed.stored, missed.reason)
                # The leader before was cancelled before it could have the right to forward in the cluster.
                return await self._lead(flight, missed)
            case Signal.GO:
                return Go(None, missed.stored, missed.reason)
            case Signal.FAILED:
                stale = missed.stored
                if stale is not None and asker.stands_in(stale):
                    return Answer(stale, Result.STALE, Reason.STALE, fwd_status=flight.failed_status)
                return Go(None, stale, missed.reason)

    def _landed(self, flight: Flight, landed: StoredResponse, reason: Reason) -> Answer | None:
        """The answer that another's result makes, if this request selects it and it may still be handed over."""
        found, _, _ = self._asker.find()
        if found is not landed:
            return None
        answer = self._usable(landed, tier="l2" if flight.l2 else "l1")
        if not isinstance(answer, Answer):
            return None
        return answer if flight.l2 else Answer(landed, Result.COLLAPSED, reason)
