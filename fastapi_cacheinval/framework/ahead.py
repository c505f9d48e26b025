"""The route lookup of a request whose covers have run before the app has it.

If nothing stored answers it, the app gets the request, and its route goes on from what the covers gave. Each cover runs
once, in its place.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from fastapi_cacheinval.framework.incoming import Ahead, Incoming
from fastapi_cacheinval.framework.reading import Read
from fastapi_cacheinval.framework.responding import Direct, Stored
from fastapi_cacheinval.routes.fastapi_private import on_end
from fastapi_cacheinval.routes.fastapi_solver import Handed
from fastapi_cacheinval.routes.handler_hook import Handler
from fastapi_cacheinval.routes.plan import RoutePlan

__all__ = ["MOMENT", "ReadAhead"]

MOMENT = 0.0005
"""Seconds for which routes that were looked at are taken to be the same."""

_Watching = tuple[Callable[[BaseException], object], Callable[[object], object]]


class ReadAhead(Read):
    """A safe request whose route is known before the app has it; `run` is called in place of the app."""

    _ahead = True
    # What the route's handler will go on from; None once it does.
    _handed: Handed | None = None
    # The functions that are told what the handler raises or makes.
    _watching: _Watching | None = None

    def __init__(self, incoming: Incoming, ahead: Ahead) -> None:
        super().__init__(incoming)
        self._shortcut, self._solved = ahead.shortcut, ahead.handed

    async def run(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request, or give it to the app."""
        handed, shortcut = self._solved, self._shortcut
        if handed.covers is not None:
            shortcut.write(scope)
            try:
                await self.look_up(handed.request, shortcut.cached, handed.partition)
            except Exception as error:  # noqa: BLE001 - it is raised again where FastAPI's solver would have raised it
                handed.error = error
            if type(self._responder) is Stored:
                return
            shortcut.take_back(scope)
        self._ahead, self._handed = False, handed
        await self.app_context.app(scope, receive, send)

    # A plain method, as the one that it stands in for.
    def send(self, message: Message) -> Awaitable[None]:
        """Take one message of the app's."""
        if self._handed is not None:
            self._lose()
        return super().send(message)

    async def answer(self, handler: Handler, request: Request) -> Response:
        """The request has come to a handler."""
        handed = self._handed
        if handed is None:
            return await super().answer(handler, request)
        if handed.solver.handler is not handler or request.scope is not self.scope:
            self._lose()
            return await super().answer(handler, request)
        self._handed = None
        if self._watching is not None:
            on_end(request.scope, *self._watching)
        return await handed.resume(request)

    def _lose(self) -> None:
        """Another route answers, because routes were changed meanwhile: nothing of that belongs to the key."""
        self._handed = None
        if self._fill is not None:
            self._leave_fill(self.scope)
            self._responder = Direct(self.outer)

    def on_end(self, scope: Scope, raised: Callable[[BaseException], object], made: Callable[[object], object]) -> None:
        """Have functions told what the route raises or makes, once it has the request."""
        if self._ahead:
            self._watching = raised, made
        else:
            super().on_end(scope, raised, made)

    def _plan_at(self, scope: Scope) -> RoutePlan | None:
        # Where the covers took longer, routes may have been changed meanwhile.
        if self._ahead and 0 < self.app_context.engine.now() - self.stamp.began < MOMENT:
            return self._shortcut.plan
        return super()._plan_at(scope)
