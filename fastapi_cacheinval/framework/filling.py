"""A fill: the app's response on its way to the client is also kept, when it may be.

Each chunk goes to the client at once and into a bounded buffer; what is stored becomes visible only
when it is complete, before the last chunk is awaited on the client. A slow or vanished client keeps
nobody waiting: a streamed body is pumped to it beside the fill.
"""

from __future__ import annotations

from asyncio import CancelledError
from functools import partial

from starlette.types import Message, Send

from fastapi_cacheinval.core.outcome import Outcome, Reason, Result
from fastapi_cacheinval.core.stored import StoredResponse
from fastapi_cacheinval.engine.body_budget import Reservation
from fastapi_cacheinval.engine.coalescing import Go
from fastapi_cacheinval.framework.exchange import Exchange
from fastapi_cacheinval.framework.fill_rules import Contradict, Cover, FillRules, Form, Freshen, Keep, Refuse
from fastapi_cacheinval.framework.keeping import INCOMPLETE, RAISED, Keeping
from fastapi_cacheinval.framework.messages import MessageOrder, own_copy, past_the_length, were_cut
from fastapi_cacheinval.framework.responding import nowhere, send_304, status_fields, stored_fields
from fastapi_cacheinval.framework.streaming import Pump, UnannouncedEnd
from fastapi_cacheinval.grammar.fields import RawField, RawHeaders, lower_names

__all__ = ["Fill"]


class Fill:
    """Takes the app's response in place of the client, passes it on, and keeps it if its rules allow that.

    `go` says which flight it leads, if any, and which response may stand in should it fail.
    """

    def __init__(self, exchange: Exchange, rules: FillRules, go: Go) -> None:
        self._exchange = exchange
        self._rules = rules
        self._keeping = Keeping(exchange, rules, go)
        self._detail = go.detail
        self._order = MessageOrder()
        self._start: Message | None = None
        self._body = bytearray()
        self._pump: Pump | None = None
        # Where answers go: the cache's own, and the app's; nowhere once something else has answered the client.
        self._out = self._ours = exchange.ours
        self._outer = exchange.outer
        # Of a stream: what is buffered, and what waits for its client; and its end, if nobody has announced that.
        self._held: Reservation | None = None
        self._end: UnannouncedEnd | None = None
        self._stood_in = self._contradicted = False
        # What takes the messages once nothing more is to be kept.
        self._rest: Send | None = None
        exchange.receive.hold(self._keeping)

    # -- the app's messages ---------------------------------------------------------------------

    async def __call__(self, message: Message) -> None:
        """Take one message of the app's."""
        if not self._order.take(message):
            await self._out_of_place(message)
            return
        if self._order.body_ended:
            # All has been said: whether the client is still there cuts nothing off any more.
            self._exchange.receive.release()
        if self._rest is not None:
            await self._rest(message)
        elif message["type"] == "http.response.start":
            await self._started(message)
        elif self._start is None:
            await self._outer(message)
        elif message["type"] == "http.response.body":
            await self._chunk(self._start, message)
        else:
            await self._let_through(self._start, message, "extension")

    async def _out_of_place(self, message: Message) -> None:
        """What is no part of the response comes after all that is: the server says what it would without a cache."""
        if self._start is not None and self._rest is None and not self._order.body_ended:
            await self._let_through(self._start, None, "incomplete")
        if self._pump is not None:
            await self._pump.drained()
        await self._outer(message)

    async def _started(self, message: Message) -> None:
        status, headers = message["status"], lower_names(message.get("headers", ()))
        # Servers take names in any case, so a `Set-Cookie` of a layer inside must be known in any.
        start = {**message, "headers": headers}
        if self._keeping.given_up:
            await self._refuse(start, INCOMPLETE)
            return
        stale = self._keeping.stand_in() if status >= 500 else None
        match self._rules.accept(status, headers, trailers=bool(message.get("trailers")), stale=stale):
            case Keep():
                self._start = start
                self._keeping.begin(start)
            case Cover(stored):
                self._keeping.lose(status)
                await self._stand_in(stored, status, headers)
            case Contradict():
                self._contradicted = True
                self._keeping.leave_open()
                self._rest = self._outer = nowhere
            case Freshen() as freshen:
                await self._freshen(freshen)
            case Refuse() as refuse:
                await self._refuse(start, refuse)

    async def _refuse(self, start: Message, refuse: Refuse) -> None:
        """Let a response through that is not kept, or the 304 that stands for it."""
        status, headers = start["status"], start["headers"]
        if refuse.failed:
            self._keeping.lose(status)
        else:
            self._keeping.refuse(outdated=refuse.outdated)
        fields = self._passed_on(Form.REFUSED, headers, self._keeping.outcome(refuse.detail))
        if self._rules.has_it(status, headers):
            self._rest = nowhere
            await send_304(self._outer, fields)
        else:
            self._rest = self._outer
            await self._outer({**start, "headers": fields})

    def _passed_on(self, form: Form, headers: list[RawField], outcome: Outcome) -> list[RawField]:
        """Say how the answer came, and give the fields with which it is passed on."""
        self._exchange.told(outcome)
        return [*self._rules.fields(form, headers), *status_fields(self._exchange.app_context, outcome)]

    async def _freshen(self, freshen: Freshen) -> None:
        """A 304 to our own condition: what is stored is still right, with these fields (RFC 9111 section 4.3.4)."""
        exchange, stored = self._exchange, freshen.made.stored
        if freshen.refused is None:
            outcome = self._keeping.store(freshen.made, exchange.app_context.engine.now())
        else:
            self._keeping.refuse(outdated=freshen.outdated)
            outcome = self._keeping.outcome(freshen.refused)
        outcome = outcome._replace(fwd_status=304)
        self._rest = nowhere
        exchange.told(outcome, filled=None if freshen.own else stored)
        fields = [*stored.headers, *freshen.age, *freshen.own, *status_fields(exchange.app_context, outcome)]
        await self._rules.reply(self._ours, stored, fields)

    async def _chunk(self, start: Message, message: Message) -> None:
        body, more = message.get("body", b""), message.get("more_body", False)
        if self._keeping.given_up or (self._pump is not None and self._pump.gone and self._keeping.client_left() <= 0):
            await self._let_through(start, message, "incomplete")
            return
        self._body += body
        complete = not more or len(self._body) == self._keeping.length
        if complete and self._exchange.passages and were_cut(self._exchange.passages, self._keeping.length):
            self._keeping.broken = True
        if len(self._body) > self._exchange.app_context.engine.settings.max_body_bytes:
            await self._let_through(start, message, "too-large")
        elif self._pump is None and complete and (self._body or self._keeping.length is not None):
            await self._completed_at_once(start)
        else:
            await self._stream(start, own_copy(message), complete=complete)

    async def _stream(self, start: Message, message: Message, *, complete: bool) -> None:
        """Pass one piece of a stream on, and keep the whole once it is `complete`."""
        held = self._held = self._held or Reservation(self._exchange.app_context.bodies)
        end = self._end = self._end or UnannouncedEnd(self._exchange.runtime.loop)
        if not held.grow(2 * len(message.get("body", b""))):
            await self._let_through(start, message, "in-flight")
        elif self._pump is None:
            await self._begin_stream(start, message, held)
            if complete and self._keeping.open:
                end.begin(partial(self._keep_whole, start))
        else:
            if complete and self._keeping.length is not None:
                self._keep_whole(start)
            elif complete and self._keeping.open:
                end.begin(partial(self._keep_whole, start))
            await self._pump.put(message)

    def _keep_whole(self, start: Message) -> None:
        """Keep a stream that has come to its end, unless it is decided already what becomes of it."""
        if self._keeping.open:
            self._keeping.keep(start, bytes(self._body))
            self._forget_body()

    async def _completed_at_once(self, start: Message) -> None:
        exchange = self._exchange
        body = bytes(self._body)
        stored, outcome = self._keeping.keep(start, body)
        self._rest = past_the_length(self._outer)
        if stored is None:
            fields = self._passed_on(Form.UNKEPT, start["headers"], outcome)
            await self._ours({**start, "headers": fields})
            await self._ours({"type": "http.response.body", "body": body})
            return
        exchange.told(outcome, filled=stored)
        self._body = bytearray()
        fields = [*self._rules.first_fields(start["headers"], stored), *status_fields(exchange.app_context, outcome)]
        await self._rules.reply(self._ours, stored, fields)

    async def _begin_stream(self, start: Message, message: Message, held: Reservation) -> None:
        fields = self._passed_on(Form.STREAMED, start["headers"], self._keeping.outcome(self._detail))
        if self._rules.has_it(start["status"], start["headers"]):
            await send_304(self._outer, fields)
            self._out = nowhere
        self._keeping.head_gone = True
        self._pump = Pump(self._out, held)
        await self._pump.put({**start, "headers": fields}, message)

    async def _let_through(self, start: Message, message: Message | None, reason: str) -> None:
        """What cannot be kept after all: from here on the client sets the pace again."""
        self._keeping.refuse(detail=reason, outdated=True)
        self._rest = self._out
        if self._pump is None:
            fields = self._passed_on(Form.UNKEPT, start["headers"], self._keeping.outcome(reason))
            await self._out({**start, "headers": fields})
        else:
            self._forget_body()
            await self._pump.drained()
        self._body = bytearray()
        if message is not None:
            await self._out(message)

    def _forget_body(self) -> None:
        """What is stored, or will not be, needs no buffer: what is left of a stream waits for its client."""
        if self._held is not None:
            self._held.shrink(len(self._body))
        self._body = bytearray()

    # -- another answer than the app's ----------------------------------------------------------

    @property
    def contradicted(self) -> bool:
        """Whether a 304 spoke of another response: the client has no answer yet, and the flight is not ended."""
        return self._contradicted

    def take_client(self) -> Send | None:
        """Give a client without any answer to who answers it; what the app says is kept. None where it has one."""
        if self._start is not None or self._rest is not None or self._stood_in or not self._keeping.open:
            return None
        ours, self._stood_in, self._keeping.goes_on = self._ours, True, True
        self._out = self._ours = self._outer = nowhere
        return ours

    def abandon(self) -> None:
        """Keep nothing, and let nobody wait: the response has another owner."""
        self._keeping.refuse()
        if self._held is not None:
            self._held.close()

    async def _stand_in(self, stale: StoredResponse, status: int, headers: RawHeaders = ()) -> None:
        """Answer with a stale response, and drop what else the app sends."""
        self._keeping.stood_in(stale, status, headers)
        exchange, engine = self._exchange, self._exchange.app_context.engine
        self._rest = nowhere
        self._stood_in = True
        outcome = engine.outcome(stale, Result.STALE, Reason.STALE, engine.now(), status)
        exchange.told(outcome, stale)
        await self._rules.reply(self._ours, stale, stored_fields(exchange.app_context, stale, outcome))

    async def ended(self) -> None:
        """The app returned: a fill that is not complete by now never will be."""
        if self._end is not None:
            self._end.returned()
        self._keeping.lose()
        try:
            if self._pump is not None:
                await self._pump.drained()
        finally:
            if self._held is not None:
                self._held.close()

    async def failed(self, error: BaseException) -> bool:
        """The app raised; True where a stale response stood in for it."""
        try:
            return await self._failed(error)
        finally:
            if self._held is not None:
                self._held.close()

    async def _failed(self, error: BaseException) -> bool:
        exchange = self._exchange
        if self._end is not None and self._end.raised() and isinstance(error, Exception):
            # A background task, or the end of a body that was none: what is kept may be half of it.
            self._keeping.take_back()
        self._keeping.lose(500 if isinstance(error, Exception) else None)
        if self._pump is not None:
            if isinstance(error, CancelledError):
                self._pump.cancel()
            else:
                await self._pump.drained()
            return False
        if not isinstance(error, Exception):
            return False
        # The error layer of an app inside ours sends its 500 first and raises then.
        if not self._stood_in:
            stale = self._keeping.stand_in() if self._rest is None else None
            if stale is None:
                return False
            await self._stand_in(stale, 500)
        exchange.log_trouble(RAISED, error)
        return True
