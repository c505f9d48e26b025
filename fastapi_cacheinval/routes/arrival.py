"""Whether a request came to a route, and how the route's handler ended.

A route's own dependencies, a router and a middleware can each answer a request before any handler does. Of a FastAPI
route we know: its endpoint is called through its dependency tree, and that call and its end are noted here. Of anything
else, such as a plain Starlette route or a mounted app of another framework, we only know that it was given the request.
A route class with methods of its own stands between: what it answers without its endpoint counts as its handler's,
unless that answers an exception of the route's dependencies.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
import threading
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from functools import cache, wraps
from typing import Any

from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastapi_cacheinval.core.extent import Handler
from fastapi_cacheinval.routes.fastapi_private import (
    Dependant,
    EffectiveRoute,
    app_of,
    effective_route_at,
    is_of_dependencies,
    original_of,
)
from fastapi_cacheinval.routes.middleware_stack import leads_to_fastapi

__all__ = ["Arrival", "arrive", "declared_call", "note_calls"]

_NOTED = "__cacheinval_noted__"
_STOCK = (Route.handle, APIRoute.handle)
# What an overriding method has to hand on to, so that the framework's own still calls the endpoint.
_HANDED_ON = ("get_route_handler", "handle")


class Arrival:
    """How far one request has come, and how each handler that it came to has ended; threads may note it.

    A layer may give the request to several routes, or to one several times.
    """

    __slots__ = ("_lock", "_then", "_visits")

    def __init__(self) -> None:
        self._visits: list[_Visit] = []
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
        current = _current.get()
        return any(visit is current for visit in self._visits)

    def given(self) -> None:
        """Something that may be a handler has the request, and it cannot be followed."""
        visit = _Visit(self._over)
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
        visit = _Visit(self._over)
        self._visits.append(visit)
        token = _current.set(visit)
        try:
            await handle(scope, receive, visit.heard(send))
        except BaseException as error:
            visit.left(error)
            raise
        finally:
            _current.reset(token)

    def _over(self, visit: _Visit) -> None:
        with self._lock:
            visit.running = False
            then = None
            if not self.running:
                then, self._then = self._then, None
        if then is not None:
            then()


class _Visit:
    """One passage of a request into a route."""

    __slots__ = ("_before", "_known", "_over", "_returned", "own_way", "running")

    def __init__(self, over: Callable[[_Visit], None]) -> None:
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


_current: ContextVar[_Visit | None] = ContextVar("fastapi_cacheinval_arrival", default=None)


def _known_of(error: BaseException) -> Handler:
    if isinstance(error, HTTPException):
        return Handler.REFUSED if error.status_code >= 400 else Handler.RAN
    return Handler.FAILED if isinstance(error, Exception) else Handler.RAN


def arrive(route: BaseRoute, scope: Any) -> None:
    """Note that a request has come to a route; a route whose endpoint is not watched counts as its handler."""
    visit = _current.get()
    if visit is None:
        return
    if _answers_405(route, scope["method"]):
        visit.note(Handler.STOPPED)
    elif isinstance(route, APIRoute):
        effective = effective_route_at(scope)
        watched = effective is not None and original_of(effective) is route and _watched(effective)
        kind: Any = type(route)
        visit.own_way = watched and _has_own_way(kind)
        visit.note(Handler.STOPPED if watched else Handler.GIVEN)
    else:
        visit.note(Handler.GIVEN)


def _answers_405(route: BaseRoute, method: str) -> bool:
    """Whether the framework itself refuses a method that a route does not have, whatever a layer makes of that."""
    if not isinstance(route, Route) or type(route).handle not in _STOCK:
        return False
    return method not in (route.methods or {method})


def note_calls(route: EffectiveRoute) -> None:
    """Have each call of a FastAPI route's endpoint noted; done once for each of its dependency trees."""
    for dependant in (route.dependant, original_of(route).dependant):
        if dependant.call is not None and not _is_noted(dependant):
            dependant.call = _noting(dependant.call)


def _is_noted(dependant: Dependant) -> bool:
    # The very function: one that wraps it has a copy of what it says of itself.
    return getattr(dependant.call, _NOTED, None) is dependant.call


def declared_call(dependant: Dependant) -> Any:
    """What a dependant was made to call, noted or not."""
    call: Any = dependant.call
    return call.__wrapped__ if _is_noted(dependant) else call


def _noting(call: Callable[..., Any]) -> Callable[..., Any]:
    # A generator function's generator is passed on as it is: the framework looks at `call`.
    def noted(*args: Any, **values: Any) -> Any:
        visit = _current.get()
        if visit is None:
            return call(*args, **values)
        visit.called()
        try:
            result = call(*args, **values)
        except BaseException as error:
            visit.raised(error)
            raise
        if inspect.isawaitable(result) and _on_loop():
            return _awaited(result, visit)
        visit.returned(result)
        return result

    own = getattr(inspect.unwrap(call), "__code__", None)
    if own is not None:
        # The framework's validation errors, and tracebacks, name the place of the endpoint.
        noted.__code__ = noted.__code__.replace(
            co_filename=own.co_filename, co_firstlineno=own.co_firstlineno, co_name=own.co_name
        )
    wraps(call)(noted)
    setattr(noted, _NOTED, noted)
    return noted


async def _awaited(result: Awaitable[Any], visit: _Visit) -> Any:
    try:
        value = await result
    except BaseException as error:
        visit.raised(error)
        raise
    visit.returned(value)
    return value


def _on_loop() -> bool:
    """Whether this thread has an event loop, so that what is returned is awaited."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _watched(route: EffectiveRoute) -> bool:
    """Whether the endpoint of this route cannot be called without being noted, as far as anybody can tell."""
    original = original_of(route)
    if not _is_noted(route.dependant) or "get_route_handler" in vars(original):
        return False
    kind: Any = type(original)
    return _hands_on(kind) and leads_to_fastapi(app_of(route))


@cache
def _has_own_way(kind: Any) -> bool:
    """Whether a route class overrides a method on the way to the endpoint."""
    return any(getattr(kind, name) is not getattr(APIRoute, name) for name in _HANDED_ON)


@cache
def _hands_on(kind: type[Any]) -> bool:
    """Whether each method that a route class overrides calls the one that it overrides."""
    for base in kind.__mro__:
        if base is APIRoute:
            return True
        for name in _HANDED_ON:
            code = getattr(vars(base).get(name), "__code__", None)
            if name in vars(base) and (code is None or name not in code.co_names):
                return False
    return True
