"""What passes between a handler and the class of its route: the request that comes, the response object that goes."""

from __future__ import annotations

import copy

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message

from fastapi_cacheinval.grammar.fields import RawField
from fastapi_cacheinval.routes.own_code import sent_without_the_request

__all__ = ["Said", "as_its_scope_says", "is_whole"]

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


class Said:
    """A `send` that keeps what the cache says at the handler."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: list[RawField] = []
        self.body = b""

    async def __call__(self, message: Message) -> None:
        """One message of the answer."""
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


def is_whole(response: Response) -> bool:
    """Whether a response has all of its body, and is sent without a look at the request."""
    return isinstance(getattr(response, "body", None), bytes | memoryview) and sent_without_the_request(response)
