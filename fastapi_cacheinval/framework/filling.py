"""A fill: the app's response on its way to the client is also kept, when it may be.

Each chunk goes to the client at once and into a bounded buffer; what is stored becomes visible only
when it is complete, before the last chunk is awaited on the client. A slow or vanished client keeps
nobody waiting: a streamed body is pumped to it beside the fill.
"""

from __future__ import annotations

from asyncio import CancelledError

from starlette.types import Message

from fastapi_cacheinval.core.decide import Reason
from fastapi_cacheinval.core.outcome import Outcome, Result
from fastapi_cacheinval.core.recipe import Recipe, downstream_fields, stored_response, streamed_fields
from fastapi_cacheinval.core.stored import StoredResponse
from fastapi_cacheinval.core.storing import content_length, refusal
from fastapi_cacheinval.core.tag_limits import too_many_tags
from fastapi_cacheinval.engine.body_budget import Reservation
from fastapi_cacheinval.engine.flights import Flight
from fastapi_cacheinval.framework.answering import SENT_PAST, RawField, send_response, send_stored, status_fields
from fastapi_cacheinval.framework.exchange import Exchange, FillSource
from fastapi_cacheinval.framework.pump import Pump
from fastapi_cacheinval.ports.store import Target

__all__ = ["Fill"]

_RAISED = "a forward raised; a stale response stood in for it"


class Fill:
    """Takes the app's messages in place of the client, and passes them on.

    `flight` is led by this fill, or None where it goes side by side with others; `stale` is the
    response that may stand in should it fail; `target` is the raw target that may lead to it.
    """

    def __init__(
        self,
        exchange: Exchange,
        recipe: Recipe,
        reason: Reason,
        *,
        flight: Flight | None,
        stale: StoredResponse | None,
        target: Target | None,
    ) -> None:
        self._exchange = exchange
        self._recipe = recipe
        self._reason = reason
        self._flight = flight
        self._stale = stale
        self._target = target
        self._start: Message | None = None
        self._body = bytearray()
        self._pump: Pump | None = None
        # Of a stream: what is buffered, and what waits for its client.
        self._held = Reservation(exchange.app_context.bodies)
        self._open = True
        self._stood_in = False
        self._unshared: str | None = None
        # A refresh has no client to hear.
        self._source = FillSource(None if exchange.refresh is not None else exchange.source)
        exchange.source = self._source

    def seen_by(self, what: str) -> None:
        """Something of the app's that is handed the request makes the response: it is that caller's alone."""
        self._unshared = what

    # -- the app's messages ---------------------------------------------------------------------

    async def __call__(self, message: Message) -> None:
        kind = message["type"]
        if kind == "http.response.start":
            await self._started(message)
        elif kind == "http.response.body" and self._start is not None:
            await self._chunk(self._start, message)
        elif kind in SENT_PAST and self._start is not None:
            await self._let_through(self._start, message, "extension")
        else:
            await self._exchange.outer(message)

    async def _started(self, message: Message) -> None:
        exchange, recipe = self._exchange, self._recipe
        status, headers = message["status"], [(name.lower(), value) for name, value in message.get("headers", ())]
        # Servers take names in any case, so a `Set-Cookie` of a layer inside must be known in any.
        message = {**message, "headers": headers}
        if status >= 500 and status not in recipe.policy.lifetimes:
            await self._server_error(message, status)
            return
        reason = "trailers" if message.get("trailers") else None
        reason = reason or self._unshared
        reason = reason or refusal(
            status,
            headers,
            recipe.policy,
            partitioned=bool(recipe.policy.partition),
            most_bytes=exchange.app_context.engine.settings.max_body_bytes,
        )
        if reason is not None:
            self._refused()
            self._source.release()
            if status in (404, 410) or status < 400:
                exchange.outdate(recipe)
            exchange.annotate(Outcome(Result.MISS, reason=self._reason, detail=reason))
            await exchange.sink(message)
            return
        self._start = message

    async def _server_error(self, message: Message, status: int) -> None:
        exchange = self._exchange
        self._lost(status)
        stale = self._fallback()
        if stale is None:
            self._source.release()
            exchange.annotate(Outcome(Result.MISS, reason=self._reason, detail="status"))
            await exchange.sink(message)
            return
        exchange.swallow()
        await self._stand_in(stale, status)

    async def _chunk(self, start: Message, message: Message) -> None:
        body, more = message.get("body", b""), message.get("more_body", False)
        self._body += body
        length = content_length(start.get("headers", ()))
        complete = not more or (length is not None and len(self._body) == length)
        if self._pump is None and complete:
            await self._completed_at_once(start)
        elif len(self._body) > self._exchange.app_context.engine.settings.max_body_bytes:
            await self._let_through(start, message, "too-large")
        elif not self._held.grow(2 * len(body)):
            await self._let_through(start, message, "in-flight")
        elif self._pump is None:
            await self._begin_stream(start, message)
        else:
            if complete and self._open:
                self._keep(start)
                self._forget_body()
            await self._pump.put(message)

    async def _completed_at_once(self, start: Message) -> None:
        exchange = self._exchange
        stored, outcome = self._keep(start)
        exchange.swallow()
        exchange.told(outcome, filled=stored)
        if stored is None:
            fields = self._unkept_fields(start)
            await exchange.outer({**start, "headers": [*fields, *status_fields(exchange.app_context, outcome)]})
            await exchange.outer({"type": "http.response.body", "body": bytes(self._body)})
            return
        self._forget_body()
        fields = [*stored.headers, *status_fields(exchange.app_context, outcome)]
        await send_response(exchange.outer, exchange.app_context, stored, exchange.client_headers, fields)

    def _unkept_fields(self, start: Message) -> list[RawField]:
        headers: list[RawField] = list(start.get("headers", ()))
        return [*headers, *downstream_fields(headers, self._recipe.policy, private=self._recipe.private)]

    async def _begin_stream(self, start: Message, message: Message) -> None:
        exchange = self._exchange
        self._pump = Pump(exchange.outer, self._held)
        headers: list[RawField] = list(start.get("headers", ()))
        fields = streamed_fields(self._recipe, headers, exchange.request_tags().snapshot())
        outcome = Outcome(Result.MISS, reason=self._reason, detail=exchange.detail)
        exchange.told(outcome)
        await self._pump.put({**start, "headers": [*fields, *status_fields(exchange.app_context, outcome)]}, message)

    async def _let_through(self, start: Message, message: Message, reason: str) -> None:
        """What cannot be kept after all: from here on the client sets the pace again."""
        exchange = self._exchange
        self._refused()
        exchange.outdate(self._recipe)
        self._source.release()
        if self._pump is None:
            outcome = Outcome(Result.MISS, reason=self._reason, detail=reason)
            exchange.told(outcome)
            fields = [*self._unkept_fields(start), *status_fields(exchange.app_context, outcome)]
            await exchange.outer({**start, "headers": fields})
        else:
            self._forget_body()
            await self._pump.drained()
        self._body = bytearray()
        exchange.sink = exchange.outer
        await exchange.outer(message)

    def _forget_body(self) -> None:
        """What is stored, or will not be, needs no buffer: what is left of a stream waits for its client."""
        self._held.shrink(len(self._body))
        self._body = bytearray()

    # -- what becomes of it ---------------------------------------------------------------------

    def _keep(self, start: Message) -> tuple[StoredResponse | None, Outcome]:
        """Store the complete response, if no purge has overtaken it, and let the waiters have it."""
        exchange, engine = self._exchange, self._exchange.app_context.engine
        body = bytes(self._body)
        headers: list[RawField] = list(start.get("headers", ()))
        length = content_length(headers)
        if length is not None and length != len(body):
            self._refused()
            return None, Outcome(Result.MISS, reason=self._reason, detail="incomplete")
        added = exchange.request_tags().snapshot()
        if too_many_tags((*self._recipe.tags, *added), headers):
            self._refused()
            exchange.outdate(self._recipe)
            return None, Outcome(Result.MISS, reason=self._reason, detail="too-many-tags")
        now = engine.now()
        stored, chosen = stored_response(
            self._recipe,
            start["status"],
            headers,
            body,
            added,
            now=now,
            wall_now=exchange.app_context.cache.clock.wall(),
            draw=engine.draw(),
        )
        seconds = now - self._recipe.began
        if engine.stale_from(stored, now) is None:
            if not engine.replica.live(now):
                # It took longer than what may be kept without a word from the log: those who wait would take as long.
                self._refused()
                return stored, Outcome(Result.MISS, reason=self._reason, detail="disconnected")
            self._close("superseded", seconds)
            if self._flight is not None:
                self._flight.supersede()
            return stored, Outcome(Result.MISS, reason=self._reason, detail="superseded")
        if not engine.keep(self._recipe, stored, chosen, now):
            self._refused()
            return stored, Outcome(Result.MISS, reason=self._reason, detail="too-large")
        if self._target is not None:
            engine.remember_target(self._target, self._recipe.key)
        if exchange.runtime.l2 is not None:
            fill_lock = None if self._flight is None else self._flight.take_fill_lock()
            exchange.runtime.l2.keep(self._recipe.key, stored, fill_lock, split=self._recipe.split)
        self._close("stored", seconds)
        exchange.runtime.flights.unmark(stored.key)
        if self._flight is not None:
            self._flight.land(stored)
        return stored, Outcome(
            Result.MISS, reason=self._reason, ttl=int(stored.fresh_until - now), stored=True, detail=exchange.detail
        )

    def _close(self, outcome: str, seconds: float) -> None:
        self._open = False
        exchange = self._exchange
        exchange.app_context.counters.filled(seconds, exchange.route, outcome)
        if outcome == "stored":
            exchange.app_context.log_once.well((_RAISED, exchange.route))
        if exchange.refresh is not None:
            exchange.refresh.outcome = outcome

    def _refused(self) -> None:
        if self._open:
            self._close("refused", self._exchange.app_context.engine.now() - self._recipe.began)
            if self._flight is not None:
                self._flight.refuse()

    def _lost(self, status: int | None = None) -> None:
        if self._open:
            self._close("failed", self._exchange.app_context.engine.now() - self._recipe.began)
            if self._flight is not None:
                self._flight.fail(status)

    async def _stand_in(self, stale: StoredResponse, status: int) -> None:
        exchange = self._exchange
        self._stood_in = True
        engine = exchange.app_context.engine
        outcome = engine.outcome(stale, Result.STALE, Reason.STALE, engine.now(), status)
        exchange.told(outcome, stale)
        await self._send_in_place(stale, outcome)

    def _fallback(self) -> StoredResponse | None:
        """What may stand in for this forward, should it fail."""
        engine = self._exchange.app_context.engine
        return engine.fallback(self._stale, engine.now())

    async def _send_in_place(self, stale: StoredResponse, outcome: Outcome) -> None:
        exchange = self._exchange
        await send_stored(exchange.outer, exchange.app_context, stale, exchange.client_headers, outcome)

    # -- the app's end --------------------------------------------------------------------------

    async def ended(self) -> None:
        """The app returned: a fill that is not complete by now never will be."""
        self._lost()
        try:
            if self._pump is not None:
                await self._pump.drained()
        finally:
            self._held.close()

    async def failed(self, error: BaseException) -> bool:
        """The app raised; True where a stale response stood in for it."""
        try:
            return await self._failed(error)
        finally:
            self._held.close()

    async def _failed(self, error: BaseException) -> bool:
        exchange = self._exchange
        self._lost(500 if isinstance(error, Exception) else None)
        if self._pump is not None:
            if isinstance(error, CancelledError):
                self._pump.cancel()
            else:
                await self._pump.drained()
            return False
        if self._stood_in and isinstance(error, Exception):
            # The error layer of an app inside ours sends its 500 first and raises then.
            exchange.log_trouble(_RAISED, error)
            return True
        if not isinstance(error, Exception) or exchange.sink is not self:
            return False
        stale = self._fallback()
        if stale is None:
            return False
        exchange.log_trouble(_RAISED, error)
        exchange.swallow()
        await self._stand_in(stale, 500)
        return True
