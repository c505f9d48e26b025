"""A request at the framework's own handler, behind what the route's class puts around that.

A class is handed a response object where middleware is handed messages. What the handler says is stored before the
class sees it, and every answer, stored or not, is handed to the class as a response object.
"""

from __future__ import annotations

import copy
from collections.abc import Awaitable, Callable

from fastapi.exceptions import RequestValidationError
from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastapi_cacheinval.dependencies import SCOPE_KEY
from fastapi_cacheinval.framework.short_circuit import Served, sent_without_the_request
from fastapi_cacheinval.grammar.fields import RawField
from fastapi_cacheinval.routes.handler_hook import Handler

__all__ = ["answered_behind", "as_its_scope_says"]


# What a handler's parameters are read from.
_READ = ("cookies", "headers", "path_params", "query_params")


def as_its_scope_says(request: Request) -> bool:
    """Whether a route class hands on a request that says what its scope says, of which the cache key is made."""
    kind, memo = type(request), vars(request)
    if any(getattr(kind, name, None) is not getattr(Request, name) for name in _READ):
        return False
    headers, query = memo.get("_headers"), memo.get("_query_params")
    return (headers is None or [*headers.raw] == [*request.scope["headers"]]) and (
        query is None or query == QueryParams(request.scope["query_string"])
    )


class _Said:
    """A `send` that keeps what the cache says at the handler."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: list[RawField] = []
        self.body = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], [*message.get("headers", ())]
        elif message["type"] == "http.response.body":
            self.body += message.get("body", b"")

    def response(self, made: Response | None) -> Response:
        """The response object for the class; of the handler's own kind where the handler has `made` one."""
        # A copy: the handler may return the same object each time.
        response = Response() if made is None else copy.copy(made)
        response.__dict__.pop("_headers", None)
        response.status_code, response.raw_headers, response.body = self.status, self.headers, self.body
        return response


def _is_whole(response: Response) -> bool:
    """Whether a response has all of its body, and is sent without a look at the request."""
    return isinstance(getattr(response, "body", None), bytes | memoryview) and sent_without_the_request(response)


async def answered_behind(
    enter: Callable[[ASGIApp, Scope, Receive, Send], Awaitable[None]],
    leave: Callable[[object], None],
    handler: Handler,
    request: Request,
) -> Response:
    """Let the cache answer at the handler; the response for the class.

    `enter` has the cache take the messages of an app. `leave` has it keep nothing of what the handler makes, and is
    given the exchange at hand: of a stream, and of an exception that is an answer, such as a 404.
    """
    said = _Said()
    made: Response | None = None
    past: Response | None = None

    async def handle(scope: Scope, _receive: Receive, send: Send) -> None:
        nonlocal made, past
        try:
            made = await handler(request)
        except Served as served:
            await send({"type": "http.response.start", "status": served.served_status, "headers": []})
            await send({"type": "http.response.body", "body": b""})
            return
        except (HTTPException, RequestValidationError) as error:
            if getattr(error, "status_code", 422) < 500:
                leave(scope[SCOPE_KEY])
            raise
        if not _is_whole(made):
            past = made
            leave(scope[SCOPE_KEY])
            return
        await send({"type": "http.response.start", "status": made.status_code, "headers": made.raw_headers})
        await send({"type": "http.response.body", "body": bytes(made.body)})

    await enter(handle, request.scope, request.receive, said)
    # The request keeps what it has parsed of the fields that the handler saw.
    request.__dict__.pop("_headers", None)
    return said.response(made) if past is None else past
