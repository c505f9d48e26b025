"""Ending a request from inside its dependencies, without running its handler and without an error."""

from __future__ import annotations

from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

__all__ = ["Served", "unwind"]


class _NoStatus(int):
    """A status code that equals nothing, so that no status handler can be registered for it."""

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)


class Served(HTTPException):
    """The request has its answer: what unwinds the app is an ordinary response with `served_status`.

    An `HTTPException` with a handler of its own, because a plain exception is logged and traced as an
    error by what is inside, and a `BaseException` becomes a group in task groups.
    """

    def __init__(self, served_status: int) -> None:
        super().__init__(_NoStatus(500), detail="answered from the cache")
        self.served_status = served_status


async def _respond(_request: Request, error: Exception) -> Response:
    return Response(status_code=error.served_status if isinstance(error, Served) else 500)


def unwind(request: Request, status: int) -> Served:
    """The exception to raise, its handler being registered where this request will look for it."""
    handlers: Any = request.scope.get("starlette.exception_handlers")
    if handlers is not None:
        handlers[0].setdefault(Served, _respond)
    return Served(status)
