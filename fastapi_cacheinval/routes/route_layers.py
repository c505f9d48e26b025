"""What a route itself puts around its handler: methods of its own, and ASGI apps around the framework's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fastapi.routing import APIRoute
from starlette.middleware.cors import CORSMiddleware

from fastapi_cacheinval.routes.endpoint_calls import put_over
from fastapi_cacheinval.routes.fastapi_private import EffectiveRoute, app_of, dependant_of, handler_of, original_of
from fastapi_cacheinval.routes.layer_kinds import is_harmless, kind_of, name_of
from fastapi_cacheinval.routes.own_code import is_frameworks

__all__ = ["around_the_handler", "goes_on_after_the_answer", "own_methods"]

# Each of these stands between a route's hook and its handler.
_SEEING = ("get_route_handler", "handle")


def around_the_handler(route: EffectiveRoute) -> Iterator[str]:
    """What of the route itself is handed the raw request before or instead of its handler, in words."""
    original = original_of(route)
    put = [name for name in _SEEING if put_over(original, name) is not None]
    for name in put:
        yield f"its {name}() is replaced"
    own = own_methods(original, APIRoute, tuple(name for name in _SEEING if name not in put))
    if own is not None:
        yield own
    yield from _wrappers(route)
    other = _instead(route)
    # A handler of the route's own making is what its method makes.
    if other is not None and own is None and not put:
        yield other
    if _solves_another(route):
        yield "another dependant than its own"


def goes_on_after_the_answer(route: EffectiveRoute) -> bool:
    """Whether what is the route's own has the request in its hands when the answer has gone, and may commit then."""
    wrapped = any(True for _ in _wrappers(route))
    return wrapped or own_methods(original_of(route), APIRoute, ("handle",)) is not None


def own_methods(thing: object, stock: type, names: tuple[str, ...]) -> str | None:
    """The methods of an object, of its own or of its class, that are not the framework's, in words."""
    kind = type(thing)
    own: list[str] = []
    for name in names:
        method = getattr(stock, name, None)
        stands = getattr(kind, name, None) is method and (method is None or is_frameworks(method))
        if not stands or put_over(thing, name) is not None:
            own.append(name)
    return f"{kind.__module__}.{kind.__qualname__} has its own {'(), '.join(own)}()" if own else None


def _wrappers(route: EffectiveRoute) -> Iterator[str]:
    """What stands around the function of FastAPI's that answers for a route."""
    for kind in _handler_behind(route)[0]:
        # `CORSMiddleware` does not always say in `Vary` that its fields depend on `Origin`.
        if kind is CORSMiddleware or not is_harmless(kind):
            yield f"{name_of(kind)} around its app"


def _instead(route: EffectiveRoute) -> str | None:
    """What stands in the place of that function."""
    handler = _handler_behind(route)[1]
    if handler is None or dependant_of(handler) is not None:
        return None
    return f"{name_of(handler)} in place of its handler"


def _solves_another(route: EffectiveRoute) -> bool:
    """Whether that function was made for another route: it runs other dependencies than those that we see."""
    handler = _handler_behind(route)[1]
    solved = None if handler is None else dependant_of(handler)
    return solved is not None and getattr(route, "app", None) is not None and solved is not route.dependant


def _handler_behind(route: EffectiveRoute) -> tuple[list[Any], Any]:
    """The kinds on the way down a route's app, and the function that answers; None where it cannot be seen."""
    step: Any = app_of(route)
    kinds: list[Any] = []
    handler = handler_of(step)
    while handler is None and step is not None:
        kinds.append(kind_of(step))
        step = getattr(step, "app", None)
        handler = handler_of(step)
    return kinds, handler
