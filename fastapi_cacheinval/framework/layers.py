"""The layers between the cache and a route: what was handed to them, and what came out of them.

Middleware is handed messages: `Spoken` stands at the near end of it, and `Compared` at the far one. A route class is
handed a response object: what the handler says is stored before the class sees it, and every answer, stored or not, is
handed to the class as a response object.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastapi_cacheinval.core.client_lifetime import is_made_of
from fastapi_cacheinval.core.conditional import (
    about_another,
    about_the_same,
    is_gzip_of,
    not_modified_fields,
    stands_for,
)
from fastapi_cacheinval.dependencies import SCOPE_KEY
from fastapi_cacheinval.framework.exchange import Exchange, forget_parsed_fields
from fastapi_cacheinval.framework.notices import Notices
from fastapi_cacheinval.framework.route_class import Said, as_its_scope_says, is_whole
from fastapi_cacheinval.framework.short_circuit import ShortCircuit
from fastapi_cacheinval.framework.streaming import Pieces
from fastapi_cacheinval.grammar.entity_tags import make_etag, read_as
from fastapi_cacheinval.grammar.fields import RawField, first, lower_names
from fastapi_cacheinval.routes.handler_hook import Handler
from fastapi_cacheinval.routes.plan import RoutePlan

__all__ = ["Compared", "Spoken", "answered_behind"]


class Spoken:
    """A `send` at the route that notes what the cache says there, before any layer has changed it.

    `at_once` says that an answer of the cache's own comes: its start comes together with the first of its body, so
    that it may be held until then. `body` is the whole content where that is known when the layers see the start;
    of a stream, `pieces` is what has come so far.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._start: Message | None = None
        self._untouched: Callable[[], None] | None = None
        self.at_once = False
        self.status: int | None = None
        self.headers: list[RawField] = []
        self.body: bytes | None = None
        self.pieces = Pieces()

    def when_untouched(self, then: Callable[[], None]) -> None:
        """Have something done once an answer has come through the layers as it was."""
        self._untouched = then

    def came_through(self) -> None:
        """The answer has come through as it was."""
        if self._untouched is not None:
            self._untouched()

    async def ours(self, message: Message) -> None:
        """One message of an answer of the cache's own."""
        self.at_once = True
        await self(message)

    async def __call__(self, message: Message) -> None:
        """One message on its way to the layers."""
        if message["type"] == "http.response.start" and self.status is None:
            # A copy: layers write into the list that they are given.
            self.status, self.headers = message["status"], lower_names(message.get("headers", ()))
            if self.at_once:
                self._start = message
                return
        elif self._start is not None:
            start, self._start = self._start, None
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                self.body = message.get("body", b"")
            else:
                self.pieces.add(message)
            await self._send(start)
        elif self.at_once and self.body is None:
            self.pieces.add(message)
        await self._send(message)


class Compared:
    """Takes the response at the far end of the layers, which may answer each caller in their own way.

    What they left as it was is the cache's own: conditions are answered, the raw target may lead to it.
    What they changed is its caller's: no downstream cache may share it, and it keeps no validator of what is stored,
    which the cache would answer with a 304. An `ETag` is made anew of the body that the caller gets.

    A stream is not held back: it is taken for the route's own if its head is, and the first of it. Where its end shows
    that it was another, the route's validators are not used any more in this process.
    """

    def __init__(self, exchange: Exchange, spoken: Spoken, plan: RoutePlan, notices: Notices) -> None:
        self._exchange = exchange
        self._spoken = spoken
        self._plan = plan
        self._notices = notices
        self._pieces = Pieces()
        self._start: Message | None = None
        self._body = b""
        # What takes the messages from here on.
        self._rest: Send | None = None

    async def __call__(self, message: Message) -> None:
        """One message out of the layers."""
        if self._rest is not None:
            await self._rest(message)
            return
        kind, start = message["type"], self._start
        if start is None and kind == "http.response.start":
            await self._started(message)
        elif start is not None and kind == "http.response.body":
            await self._chunk(start, message)
        else:
            if start is not None:
                await self._give_up(start)
            await self._exchange.outer(message)

    async def _started(self, message: Message) -> None:
        exchange, spoken = self._exchange, self._spoken
        if not spoken.at_once:
            # Nothing of the cache's: it bypassed the request, or a layer answered it alone.
            self._rest = exchange.outer
            await exchange.outer(message)
            return
        self._start = {**message, "headers": lower_names(message.get("headers", ()))}
        if spoken.body is None and not self._may_be_the_routes(self._start):
            await self._give_up(self._start)

    def _may_be_the_routes(self, start: Message) -> bool:
        """Whether the head of a stream is that of the route's own, and has a validator of it to keep."""
        spoken, fields = self._spoken, start["headers"]
        if start["status"] != spoken.status or self._notices.changes_late(self._plan):
            return False
        return about_the_same(fields, spoken.headers) and self._about(fields, None) != fields

    async def _chunk(self, start: Message, message: Message) -> None:
        if self._spoken.body is None:
            await self._begun(start, message)
            return
        self._body += message.get("body", b"")
        if not message.get("more_body", False):
            await self._completed(start, self._body)
        elif len(self._body) > self._exchange.app_context.engine.settings.max_body_bytes:
            await self._give_up(start)

    async def _begun(self, start: Message, message: Message) -> None:
        """The first of a stream under the head of the route's own."""
        pieces, spoken, more = self._pieces, self._spoken.pieces, message.get("more_body", False)
        pieces.add(message)
        if more and spoken.length and not pieces.length:
            # It tells nothing yet.
            return
        if pieces.may_be(spoken, ended=not more):
            self._rest = self._as_it_was
            await self._exchange.outer({**start, "headers": self._private(start["headers"])})
        else:
            await self._give_up(start)
        await self._exchange.outer(message)

    async def _as_it_was(self, message: Message) -> None:
        """One message of a stream whose head has left with the route's validators."""
        if message["type"] == "http.response.body":
            self._pieces.add(message)
            if not message.get("more_body", False) and not self._pieces.may_be(self._spoken.pieces, ended=True):
                self._notices.note_changed_late(self._plan)
        await self._exchange.outer(message)

    async def ended(self) -> None:
        """The layers have returned: what they have not completed goes out as it is."""
        if self._start is not None and self._rest is None:
            await self._give_up(self._start)

    async def failed(self, error: BaseException) -> bool:
        """The error is the app's to answer."""
        return False

    async def _give_up(self, start: Message) -> None:
        """Let a body through that cannot be compared: a stream, or too much of it."""
        exchange = self._exchange
        self._rest = exchange.outer
        fields = self._private(start["headers"])
        await exchange.outer({**start, "headers": self._about(fields, None)})
        if self._body:
            await exchange.outer({"type": "http.response.body", "body": self._body, "more_body": True})

    async def _completed(self, start: Message, body: bytes) -> None:
        exchange, spoken = self._exchange, self._spoken
        # What follows is no part of the response: the server says what it would without a cache.
        self._rest = exchange.outer
        status, fields, same = int(start["status"]), start["headers"], body == spoken.body
        if same and status == spoken.status and fields == spoken.headers:
            spoken.came_through()
        else:
            self._notices.note_changed(self._plan)
            fields = self._private(fields)
            if not same and status != 304:
                fields = self._about(fields, body if status == spoken.status else None)
            elif status not in {spoken.status, 304}:
                # A client that keeps it would be told that it still holds.
                fields = about_another(fields, spoken.headers, None, None)
            elif status != 304 and read_as(fields) != read_as(spoken.headers):
                # The cache's own tells how the bytes are read.
                fields = about_another(fields, [(b"etag", make_etag(body, spoken.headers))], None, body)
        if self._client_has_it(status, fields, body):
            await exchange.outer({**start, "status": 304, "headers": not_modified_fields(fields)})
            body = b""
        else:
            await exchange.outer({**start, "headers": fields})
        await exchange.outer({"type": "http.response.body", "body": body})

    def _about(self, fields: list[RawField], body: bytes | None) -> list[RawField]:
        """The fields with what the cache said of its body said of this one, or, where that is not known, left out."""
        spoken = self._spoken
        if body is not None and spoken.body is not None and is_gzip_of(body, fields, spoken.body, spoken.headers):
            # The route's own validators speak of the content, the cache's of its bytes.
            own = [(b"etag", make_etag(spoken.body, spoken.headers))]
            return about_another(fields, own, spoken.body, body)
        return about_another(fields, spoken.headers, spoken.body, body)

    def _client_has_it(self, status: int, fields: list[RawField], body: bytes) -> bool:
        exchange = self._exchange
        if body != self._spoken.body or self._notices.changes_late(self._plan):
            # A validator of the route's speaks of another body than this, or may have left with another.
            own = make_etag(body, fields)
            fields = [(b"etag", own)] if first(fields, b"etag") == own else []
            if not fields:
                return False
        return stands_for(exchange.client_headers, status, fields, exchange.app_context.cache.clock.wall())

    def _private(self, fields: list[RawField]) -> list[RawField]:
        """The fields of what is one caller's own: what the cache or the policy said for downstream is taken back."""
        policy, cdn_fields = self._plan.policy, self._exchange.cdn_fields
        if cdn_fields is not None:
            cdn_fields.forbid()
        control = None if policy is None or policy.cache_control is None else policy.cache_control.encode()

        def ours(value: bytes) -> bool:
            return value == b"no-cache" or (control is not None and is_made_of(value, control))

        return [
            (name, b"private, no-cache" if name == b"cache-control" and ours(value) else value)
            for name, value in fields
        ]


# -- what a route's class puts around the handler ------------------------------------------------


async def answered_behind(
    enter: Callable[[ASGIApp, Scope, Receive, Send], Awaitable[None]],
    leave: Callable[[object], None],
    handler: Handler,
    request: Request,
) -> Response:
    """Let the cache answer at the handler; the response for the class.

    `enter` has the cache take the messages of an app. `leave` has it keep nothing of what the handler makes, and is
    given the exchange at hand: of a stream, and of an exception that is an answer, such as a 404. A request that says
    something else than its scope is the handler's alone.
    """
    if not as_its_scope_says(request):
        return await handler(request)
    said = Said()
    made: Response | None = None
    past: Response | None = None

    async def handle(scope: Scope, _receive: Receive, send: Send) -> None:
        nonlocal made, past
        try:
            made = await handler(request)
        except ShortCircuit as served:
            await send({"type": "http.response.start", "status": served.served_status, "headers": []})
            await send({"type": "http.response.body", "body": b""})
            return
        except (HTTPException, RequestValidationError) as error:
            if getattr(error, "status_code", 422) < 500:
                leave(scope[SCOPE_KEY])
            raise
        if not is_whole(made):
            past = made
            leave(scope[SCOPE_KEY])
            return
        await send({"type": "http.response.start", "status": made.status_code, "headers": made.raw_headers})
        await send({"type": "http.response.body", "body": bytes(made.body)})

    await enter(handle, request.scope, request.receive, said)
    forget_parsed_fields(request)
    return said.response(made) if past is None else past
