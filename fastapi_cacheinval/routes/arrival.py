"""Whether a request came to a route, and how the route's handler ended.

A route's own dependencies, a router and a middleware can each answer a request before any handler does. Of a FastAPI
route we know: its endpoint is called through its dependency tree, and that call and its end are noted here. Of anything
else, such as a plain Starlette route or a mounted app of another framework, we only know that it was given the request.
A route class with methods of its own stands between: what it answers without its endpoint counts as its handler's,
unless that answers an exception of the route's dependencies.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Awaitable, Callable
from contextvars import ContextVar

from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastapi_cacheinval.core.extent import Handler
from fastapi_cacheinval.routes.fastapi_private import is_of_dependencies

__all__ = ["Arrival", "Visit", "current_visit"]


class Arrival:
    """How far one request has come, and how each handler that it came to has ended; threads may note it.

    A layer may give the request to several routes, or to one several times.
    """

    __slots__ = ("_lock", "_then", "_visits")

    def __init__(self) -> None:
        self._visits: list[Visit] = []
        self._lock = threading.Lock()
        self._then: Callable[[], object] | None = None

    def __repr__(self) -> str:
        return f"<Arrival {self.handler.name}>"

    @property
    def handler(self) -> Handler:
        """What is known as things stand."""
        return max((visit.handler for visit in self._visits), default=Handler.UNREACHED)

    @property
    def running(self) -> bool:
        """Whether a handler has been called and has not ended."""
        return any(visit.running for visit in self._visits)

    def follows(self) -> bool:
        """Whether a call of the handler in this context would be noted."""
        current = current_visit.get()
        return any(visit is current for visit in self._visits)

    def given(self) -> None:
        """Something that may be a handler has the request, and it cannot be followed."""
        visit = Visit(self._over)
        visit.note(Handler.GIVEN)
        self._visits.append(visit)

    def when_ended(self, then: Callable[[], object]) -> None:
        """Have `then` called once no handler runs, on whatever thread that is; at once where none does."""
        with self._lock:
            if self.running:
                self._then = then
                return
        then()

    async def follow(self, handle: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a route have the request, and note what becomes of it."""
        visit = Visit(self._over)
        self._visits.append(visit)
        token = current_visit.set(visit)
        try:
            await handle(scope, receive, visit.heard(send))
        except BaseException as error:
            visit.left(error)
            raise
        finally:
            current_visit.reset(token)

    def _over(self, visit: Visit) -> None:
        with self._lock:
            visit.running = False
            then = None
            if not self.running:
                then, self._then = self._then, None
        if then is not None:
            then()


class Visit:
    """One passage of a request into a route."""

    __slots__ = ("_before", "_known", "_over", "_returned", "own_way", "running")

    def __init__(self, over: Callable[[Visit], None]) -> None:
        self._over = over
        self._known = Handler.UNREACHED
        # By itself below 400, as far as is known.
        self._returned = False
        self.running = False
        # The route's class has methods of its own, which may answer without the endpoint.
        self.own_way = False
        # A layer may ask again while it handles the exception of the first time.
        self._before = sys.exception()

    @property
    def handler(self) -> Handler:
        """What is known as things stand."""
        return Handler.RAN if self.running or self._returned else self._known

    def note(self, handler: Handler) -> None:
        """Note what is known beyond what was."""
        self._known = max(self._known, handler)

    def called(self) -> None:
        """The endpoint is called."""
        self.running = True

    def returned(self, result: object) -> None:
        """The endpoint has returned; whether a plain value is below 400 is known once the route answers."""
        if isinstance(result, Response) and result.status_code >= 400:
            self.note(Handler.REFUSED)
        else:
            self._returned = True
        self._over(self)

    def raised(self, error: BaseException) -> None:
        """The endpoint has raised or was cancelled."""
        self.note(_known_of(error))
        self._over(self)

    def left(self, error: BaseException) -> None:
        """An exception leaves the route."""
        if self._known >= Handler.REFUSED or (self.own_way and not is_of_dependencies(error)):
            self.note(_known_of(error))

    def heard(self, send: Send) -> Send:
        """`send`, with the status noted that the route answers."""

        def hear(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                self._answered(message["status"])
            return send(message)

        return hear

    def _answered(self, status: int) -> None:
        if self.running:
            return
        # Exception handlers send their answers while the exception is handled.
        error = sys.exception()
        if error is self._before:
            error = None
        if self._returned:
            if error is not None:
                # A serialiser, a commit before the response or a route class has failed after it.
                self._returned = False
                self.note(Handler.FAILED)
            elif status >= 400 and not self.own_way:
                self._returned = False
                self.note(Handler.REFUSED)
        elif self.own_way and self._known is Handler.STOPPED and error is not None:
            if not is_of_dependencies(error):
                self.note(_known_of(error))
        elif self._known is Handler.GIVEN or (self.own_way and self._known is Handler.STOPPED):
            self.note(Handler.RAN if status < 400 else Handler.GIVEN)


current_visit: ContextVar[Visit | None] = ContextVar("fastapi_cacheinval_arrival", default=None)


def _known_of(error: BaseException) -> Handler:
    if isinstance(error, HTTPException):
        return Handler.REFUSED if error.status_code >= 400 else Handler.RAN
    return Handler.FAILED if isinstance(error, Exception) else Handler.RAN
