"""A fill by what the response's own headers say, freshening by 304 included (RFC 9111 sections 3 and 4.3)."""

from __future__ import annotations

from dataclasses import replace

from starlette.types import Message

from fastapi_cacheinval.core.conditional import not_modified, not_modified_fields
from fastapi_cacheinval.core.decide import Reason
from fastapi_cacheinval.core.outcome import Outcome, Result
from fastapi_cacheinval.core.rfc9111.asking import Asked
from fastapi_cacheinval.core.rfc9111.building import Judged, Received, freshened, judge, make
from fastapi_cacheinval.core.rfc9111.ranges import part_of
from fastapi_cacheinval.core.rfc9111.response import SharedResponse
from fastapi_cacheinval.core.rfc9111.serving import outlasts, stands_in
from fastapi_cacheinval.core.rfc9111.storing import OF_THE_REQUEST
from fastapi_cacheinval.core.rfc9111.targeted import passed_on
from fastapi_cacheinval.core.rfc9111.validating import confirms
from fastapi_cacheinval.core.selecting import Selector
from fastapi_cacheinval.core.stored import StoredResponse
from fastapi_cacheinval.core.storing import content_length
from fastapi_cacheinval.core.tag_limits import too_many_tags
from fastapi_cacheinval.core.tags import ALL
from fastapi_cacheinval.engine.flights import Flight
from fastapi_cacheinval.framework.answering import RawField, status_fields
from fastapi_cacheinval.framework.exchange import nowhere
from fastapi_cacheinval.framework.filling import Fill
from fastapi_cacheinval.framework.pump import Pump
from fastapi_cacheinval.framework.rfc9111.answering import send_cut, send_kept
from fastapi_cacheinval.framework.rfc9111.resource import Resource
from fastapi_cacheinval.grammar.dates import parse_date
from fastapi_cacheinval.grammar.fields import end_to_end, first

__all__ = ["HeaderFill"]

# RFC 5861 section 4: what counts as an error.
_ERRORS = frozenset({500, 502, 503, 504})


class HeaderFill(Fill):
    """Takes the app's response to a GET, stores it if it may be stored, and answers the client as asked.

    `validating` is the stored response whose validators the app is sent; `stale` may stand in for a failure;
    `unconfirmed` is what a 304 has not spoken of, so that the whole is asked for. `contradicted` says that the client
    has no answer yet, because a 304 spoke of another response than `validating`; the flight is its caller's again.
    """

    def __init__(
        self,
        resource: Resource,
        asked: Asked,
        reason: Reason,
        *,
        flight: Flight | None,
        stale: SharedResponse | None,
        validating: SharedResponse | None,
        part_key: bytes | None,
        unconfirmed: SharedResponse | None = None,
    ) -> None:
        self.client = resource.exchange.source
        super().__init__(resource.exchange, resource.recipe, reason, flight=flight, stale=stale, target=None)
        self._resource = resource
        self._asked = asked
        self._validating = validating
        self._unconfirmed = unconfirmed
        self.contradicted = False
        self._part_key = part_key
        self._judged: Judged | None = None
        self._status_of_origin: int | None = None

    def abandon(self) -> None:
        """Nothing of this response is to be kept: it has another owner."""
        self._refused()

    # -- the app's messages ---------------------------------------------------------------------

    async def _started(self, message: Message) -> None:
        exchange = self._exchange
        status, headers = message["status"], [(name.lower(), value) for name, value in message.get("headers", ())]
        message = {**message, "headers": headers}
        if status == 304 and self._validating is not None:
            if confirms(self._validating, headers, exchange.app_context.cache.clock.wall()):
                await self._freshen(self._validating, headers)
            else:
                self._contradict()
            return
        if status == 304 and self._unconfirmed is not None and self._may_stay(self._unconfirmed):
            # To a request without any condition: an answer that no client can use.
            self._lost(status)
            exchange.swallow()
            await self._stand_in(self._unconfirmed, status)
            return
        if status in _ERRORS and self._fallback() is not None:
            await self._server_error(message, status)
            return
        if status in _ERRORS and exchange.refresh is not None and self._stays():
            # Nobody is there to be answered, and what is stored stays.
            self._lost(status)
            self._source.release()
            exchange.sink = exchange.outer
            await exchange.outer(message)
            return
        self._judged = self._judge(status, headers)
        reason = "trailers" if message.get("trailers") else self._judged.refusal
        if reason is None:
            self._start = message
            return
        if status >= 500:
            # One more may lead, as after any failure.
            self._lost(status)
        else:
            self._refused()
        self._source.release()
        if reason not in OF_THE_REQUEST and status != 304 and (status < 400 or status in (404, 410)):
            exchange.outdate(self._recipe)
        outcome = Outcome(Result.MISS, reason=self._reason, detail=reason)
        exchange.told(outcome)
        await self._pass_on(message, outcome)

    async def _pass_on(self, message: Message, outcome: Outcome) -> None:
        """Let the response through, or the 304 that stands for it where the client's condition was taken off."""
        exchange, headers = self._exchange, message["headers"]
        fields: list[RawField] = [*self._visible(headers), *status_fields(exchange.app_context, outcome)]
        if self._client_has_it(message["status"], headers):
            exchange.swallow()
            await exchange.outer({"type": "http.response.start", "status": 304, "headers": not_modified_fields(fields)})
            await exchange.outer({"type": "http.response.body", "body": b""})
            return
        exchange.sink = exchange.outer
        await exchange.outer({**message, "headers": fields})

    def _visible(self, headers: list[RawField]) -> list[RawField]:
        return passed_on(headers, self._resource.hidden)

    def _client_has_it(self, status: int, headers: list[RawField]) -> bool:
        wall = self._exchange.app_context.cache.clock.wall()
        modified = first(headers, b"last-modified")
        moment = None if modified is None else parse_date(modified, wall)
        return not_modified(self._asked.headers, status, first(headers, b"etag"), moment, wall)

    async def _completed_at_once(self, start: Message) -> None:
        exchange = self._exchange
        stored, outcome = self._keep(start)
        exchange.swallow()
        exchange.told(outcome, filled=stored)
        if isinstance(stored, SharedResponse) and stored.part is None:
            self._forget_body()
            # The first answer has what is not kept of it: cookies, an upstream's Age.
            fields = [*self._visible(end_to_end(start["headers"])), *status_fields(exchange.app_context, outcome)]
            await send_cut(exchange.outer, exchange.app_context, stored, self._asked, fields)
            return
        fields = [*self._visible(start["headers"]), *status_fields(exchange.app_context, outcome)]
        await exchange.outer({**start, "headers": fields})
        await exchange.outer({"type": "http.response.body", "body": bytes(self._body)})

    def _unkept_fields(self, start: Message) -> list[RawField]:
        return self._visible(start["headers"])

    async def _begin_stream(self, start: Message, message: Message) -> None:
        exchange = self._exchange
        outcome = Outcome(Result.MISS, reason=self._reason)
        exchange.told(outcome)
        fields: list[RawField] = [
            *self._visible(end_to_end(start["headers"])),
            *status_fields(exchange.app_context, outcome),
        ]
        if self._client_has_it(start["status"], start["headers"]):
            await exchange.outer({"type": "http.response.start", "status": 304, "headers": not_modified_fields(fields)})
            await exchange.outer({"type": "http.response.body", "body": b""})
            exchange.outer = nowhere
        self._pump = Pump(exchange.outer, self._held)
        await self._pump.put({**start, "headers": fields}, message)

    # -- what becomes of it ---------------------------------------------------------------------

    def _received(self, status: int, headers: list[RawField]) -> Received:
        exchange, recipe = self._exchange, self._recipe
        return Received(
            asked=self._asked,
            key=self._resource.key_for(headers),
            path=recipe.path,
            origin=self._resource.origin,
            stamp=recipe.stamp,
            began=recipe.began,
            status=status,
            headers=headers,
            added=exchange.request_tags().snapshot(),
            now=exchange.app_context.engine.now(),
            wall=exchange.app_context.cache.clock.wall(),
            hidden=self._resource.hidden,
            route=exchange.route,
            trace=exchange.trace,
            ranged=self._part_key is not None,
        )

    def _judge(self, status: int, headers: list[RawField]) -> Judged:
        engine = self._exchange.app_context.engine
        received = self._received(status, headers)
        return judge(received, self._resource.options, engine.settings.max_body_bytes)

    def _keep(self, start: Message) -> tuple[StoredResponse | None, Outcome]:
        body = bytes(self._body)
        length = content_length(start["headers"])
        if length is not None and length != len(body):
            self._refused()
            return None, Outcome(Result.MISS, reason=self._reason, detail="incomplete")
        received = self._received(start["status"], start["headers"])
        judged = self._judged or self._judge(start["status"], start["headers"])
        if too_many_tags(received.added, received.headers):
            self._refused()
            exchange = self._exchange
            exchange.outdate(self._recipe)
            return None, Outcome(Result.MISS, reason=self._reason, detail="too-many-tags")
        part = None
        if start["status"] == 206:
            part = part_of(start["headers"], body)
            if part is None or self._part_key is None:
                self._refused()
                return None, Outcome(Result.MISS, reason=self._reason, detail="partial")
            received = replace(received, key=self._part_key)
        stored, chosen = make(received, judged, body, self._resource.options, part)
        return stored, self._store(received.key, stored, chosen)

    def _store(self, key: bytes, stored: SharedResponse, chosen: tuple[Selector, ...]) -> Outcome:
        """Store, unless a purge has overtaken it, and let the waiters have what they may."""
        exchange, engine = self._exchange, self._exchange.app_context.engine
        now = engine.now()
        seconds = now - self._recipe.began
        if engine.stale_from(stored, now) is None:
            if not engine.replica.live(now):
                self._refused()
                return Outcome(
                    Result.MISS, reason=self._reason, fwd_status=self._status_of_origin, detail="disconnected"
                )
            self._close("superseded", seconds)
            if self._flight is not None:
                self._flight.supersede()
            return Outcome(Result.MISS, reason=self._reason, fwd_status=self._status_of_origin, detail="superseded")
        if not engine.keep(self._resource.recipe_with(key), stored, chosen, now):
            self._refused()
            return Outcome(Result.MISS, reason=self._reason, fwd_status=self._status_of_origin, detail="too-large")
        self._resource.learn(stored.headers)
        fresh = stored.fresh_until > now
        self._close("stored", seconds)
        if fresh:
            exchange.runtime.flights.unmark(stored.key)
            if exchange.runtime.l2 is not None:
                fill_lock = None if self._flight is None else self._flight.take_fill_lock()
                exchange.runtime.l2.keep(key, stored, fill_lock, split=self._resource.split)
        if self._flight is not None:
            if fresh:
                self._flight.land(stored)
            else:
                # To be validated for each: nobody gains by waiting.
                self._flight.refuse()
        ttl = int(stored.fresh_until - now)
        return Outcome(
            Result.MISS,
            reason=self._reason,
            fwd_status=self._status_of_origin,
            ttl=ttl,
            stored=True,
            detail=exchange.detail,
        )

    async def _freshen(self, old: SharedResponse, update: list[RawField]) -> None:
        """A 304 to our own condition: what is stored is still right, with these fields (RFC 9111 section 4.3.4)."""
        exchange = self._exchange
        self._status_of_origin = 304
        cookies: list[RawField] = []
        if not self._resource.options.set_cookie:
            # For this client, and none of what is stored.
            cookies = [line for line in update if line[0] == b"set-cookie"]
            update = [line for line in update if line[0] != b"set-cookie"]
        merged = freshened(old, update)
        received = replace(self._received(old.status, merged), added=tuple(tag for tag in old.tags if tag != ALL))
        judged = judge(received, self._resource.options, exchange.app_context.engine.settings.max_body_bytes)
        stored, chosen = make(received, judged, old.body, self._resource.options)
        if judged.refusal is None:
            outcome = self._store(received.key, stored, chosen)
        else:
            self._refused()
            if judged.refusal not in OF_THE_REQUEST:
                exchange.outdate(self._recipe)
            outcome = Outcome(Result.MISS, reason=self._reason, fwd_status=304, detail=judged.refusal)
        exchange.swallow()
        exchange.told(outcome, filled=None if cookies else stored)
        fields: list[RawField] = [*stored.headers, *cookies, *status_fields(exchange.app_context, outcome)]
        await send_cut(exchange.outer, exchange.app_context, stored, self._asked, fields)

    def _contradict(self) -> None:
        """A 304 of another response (RFC 9111 section 4.3.4): nothing of it is used, and the whole is asked for."""
        self.contradicted = True
        self._open = False
        self._flight = None
        self._exchange.swallow()

    def _may_stay(self, stored: SharedResponse) -> bool:
        engine = self._exchange.app_context.engine
        allowed = not stored.must_revalidate and not stored.only_fresh
        return allowed and engine.stale_from(stored, engine.now()) is not None

    # -- failures -------------------------------------------------------------------------------

    def _fallback(self) -> StoredResponse | None:
        engine, stale = self._exchange.app_context.engine, self._stale
        if not isinstance(stale, SharedResponse):
            return None
        if self._exchange.refresh is not None:
            return None
        now = engine.now()
        return stale if stands_in(self._asked, stale, engine.stale_from(stale, now), now) else None

    def _stays(self) -> bool:
        engine, stale = self._exchange.app_context.engine, self._stale
        now = engine.now()
        return isinstance(stale, SharedResponse) and outlasts(stale, engine.stale_from(stale, now), now)

    async def _send_in_place(self, stale: StoredResponse, outcome: Outcome) -> None:
        if isinstance(stale, SharedResponse):
            exchange = self._exchange
            await send_kept(exchange.outer, exchange.app_context, stale, self._asked, outcome)
