"""Where a request enters the framework's own handler, behind all that the route itself puts around that.

A route class with a `get_route_handler()` of its own gets the handler that FastAPI makes, and keeps it in a closure or
in an attribute. The hook is put in its place there. A handler that is kept elsewhere is not found, and the route is
refused.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from types import CellType, FunctionType, MethodType
from typing import Any, cast

from fastapi.exceptions import RequestValidationError
from starlette.requests import Request
from starlette.responses import Response

from fastapi_cacheinval.dependencies import SCOPE_KEY
from fastapi_cacheinval.routes.held_objects import attribute_of

__all__ = ["Handler", "HandlerHook", "Refused", "beneath_hook", "places_of"]

Handler = Callable[[Request], Awaitable[Response]]
Refused = Callable[[RequestValidationError, Request], None]

# More than any chain of wrappers has.
_MOST_STEPS = 200


class HandlerHook:
    """Stands in place of FastAPI's handler, and lets the exchange at hand, if it waits for that, ask it.

    `refused` is told of a request that FastAPI finds not valid, before anybody else is.
    """

    __slots__ = ("_refused", "handler")

    def __init__(self, handler: Handler, refused: Refused) -> None:
        self.handler = handler
        self._refused = refused

    async def __call__(self, request: Request) -> Response:
        """One request that has come to the handler."""
        answer = cast("Any", getattr(request.scope.get(SCOPE_KEY), "answer", None))
        try:
            response: Response = await (self.handler(request) if answer is None else answer(self.handler, request))
        except RequestValidationError as error:
            if _raised_in(error, self.handler):
                self._refused(error, request)
            raise
        return response


def _raised_in(error: BaseException, handler: Any) -> bool:
    """Whether the handler itself raised an error, and nothing that it calls."""
    step = error.__traceback__
    while step is not None and step.tb_next is not None:
        step = step.tb_next
    return step is not None and step.tb_frame.f_code is handler.__code__


def beneath_hook(handler: Any) -> Any:
    """The handler that a hook stands in place of; anything else is given back as it is."""
    return handler.handler if type(handler) is HandlerHook else handler


def places_of(app: FunctionType, wanted: Callable[[Any], bool]) -> Iterator[tuple[Any, Callable[[Any], None]]]:
    """What is wanted, and a setter for where it is held, in the closures and attributes that a function leads to."""
    waiting: list[Any] = [app]
    seen: set[int] = set()
    while waiting and len(seen) < _MOST_STEPS:
        step = waiting.pop(0)
        if id(step) in seen:
            continue
        seen.add(id(step))
        for held, put in _held_by(step):
            if wanted(beneath_hook(held)):
                yield held, put
            elif isinstance(held, FunctionType | MethodType) or attribute_of(held, "__dict__") is not None:
                waiting.append(held)


def _held_by(step: Any) -> Iterator[tuple[Any, Callable[[Any], None]]]:
    if isinstance(step, MethodType):
        yield from _attributes(step.__self__)
        step = step.__func__
    if isinstance(step, FunctionType):
        for cell in step.__closure__ or ():
            try:
                yield cell.cell_contents, _into_cell(cell)
            except ValueError:
                # It has no value yet.
                continue
    elif not isinstance(step, type):
        yield from _attributes(step)


def _attributes(thing: Any) -> Iterator[tuple[Any, Callable[[Any], None]]]:
    own = attribute_of(thing, "__dict__")
    if isinstance(own, dict):
        named = cast("dict[str, Any]", own)
        for name, value in list(named.items()):
            yield value, _into_dict(named, name)


def _into_cell(cell: CellType) -> Callable[[Any], None]:
    def put(value: Any) -> None:
        cell.cell_contents = value

    return put


def _into_dict(own: dict[str, Any], name: str) -> Callable[[Any], None]:
    def put(value: Any) -> None:
        own[name] = value

    return put
