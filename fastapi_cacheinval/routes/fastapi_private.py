"""What FastAPI does not document; tests pin each name on every version.

Beside it, `fastapi_solver` touches the solver, `frontends` what a frontend writes into the scope, `shortcuts` the scope
keys of FastAPI's own layers, `layer_kinds` the classes of these layers, and `conversions` a parameter's schema.
Everything else in the package sees a route through `EffectiveRoute` and a dependency through `Dependant`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import AsyncExitStack
from functools import lru_cache, partial
from types import CodeType, FunctionType
from typing import Any, Protocol, cast

from fastapi import routing as fastapi_routing
from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import get_dependant, request_params_to_args, solve_dependencies
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute, iter_route_contexts
from fastapi.security.base import SecurityBase
from starlette.routing import BaseRoute

from fastapi_cacheinval.routes.handler_hook import HandlerHook, Refused, beneath_hook, places_of
from fastapi_cacheinval.routes.once import once
from fastapi_cacheinval.routes.own_code import beneath, is_frameworks

try:
    from fastapi.telemetry._api import _route_selected  # pyright: ignore[reportPrivateUsage]
except ImportError:
    # A FastAPI from before it had telemetry of its own.
    def _route_selected(*, scope: MutableMapping[str, Any], path: str | None, mount: bool = False) -> None:
        return


__all__ = [
    "Dependant",
    "EffectiveRoute",
    "Field",
    "app_of",
    "dependant_of",
    "effective_route_at",
    "effective_routes",
    "exit_of",
    "handler_of",
    "handler_places",
    "hook_handler",
    "included_routers",
    "is_fastapis",
    "is_late",
    "is_of_dependencies",
    "on_end",
    "original_of",
    "replacement",
    "route_selected",
    "scopes_of",
    "security_scheme",
    "solve_fields",
    "template_in",
]


class Field(Protocol):
    """A declared parameter: its Python name, the name it has in the request, and pydantic's `FieldInfo`."""

    name: str
    field_info: Any

    @property
    def alias(self) -> str: ...


class EffectiveRoute(Protocol):
    """A route as it answers: with the prefix and the dependencies of every include above it."""

    name: str
    path_format: str
    path_regex: re.Pattern[str]
    methods: set[str]
    dependant: Dependant
    dependency_overrides_provider: Any


def effective_routes(routes: Sequence[BaseRoute]) -> Iterator[tuple[BaseRoute, Any]]:
    """Each route in matching order, includes opened, beside the object that matches in its place."""
    for context in iter_route_contexts(routes):
        inner: Any = getattr(context, "_route_context", None)
        if inner is None:
            yield context.original_route, context.original_route
        else:
            # An included mount, host or plain route is matched by a copy with the prefix.
            yield context.original_route, inner.starlette_route or inner


def effective_route_at(scope: Mapping[str, Any]) -> EffectiveRoute | None:
    """The FastAPI route that answers the request at hand; None where another kind of route does.

    A route declared on the app never has an include's context, and an app mounted in an included router
    carries the mount's: the context counts only where it is this very route's.
    """
    route = scope.get("route")
    if not isinstance(route, APIRoute):
        return None
    context: Any = scope.get("fastapi", {}).get("effective_route_context")
    if context is not None and context.original_route is route:
        return cast("EffectiveRoute", context)
    return cast("EffectiveRoute", route)


def on_end(
    scope: Mapping[str, Any], raised: Callable[[BaseException], object], made: Callable[[object], object]
) -> None:
    """Have functions told what the route at hand raises or makes, before anything of it is sent.

    `made` is given the response object; None where this FastAPI has it elsewhere.
    """

    def left(kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            raised(error)
        else:
            # This one's, the stack's, and that of FastAPI's function, which sends the response next.
            frame = inspect.currentframe()
            for _ in range(2):
                frame = None if frame is None else frame.f_back
            made(None if frame is None else frame.f_locals.get("response"))

    stack = scope.get("fastapi_function_astack")
    if isinstance(stack, AsyncExitStack):
        stack.push(left)


def route_selected(scope: Any, template: str) -> None:
    """Tell FastAPI's own telemetry, where it is on, which route a request is for."""
    if scope.get("fastapi.telemetry") is not None:
        _route_selected(scope=scope, path=template)


def template_in(scope: Any) -> str | None:
    """The template of a plain route that has answered, without the root path; None where nothing says."""
    known = getattr(scope.get("route"), "path_format", None)
    if known is None:
        # Starlette itself does not say; FastAPI's telemetry was told, root path included.
        known = getattr(scope.get("fastapi.telemetry"), "route", None)
        if isinstance(known, str):
            known = known.removeprefix(scope.get("app_root_path", scope.get("root_path", "")).rstrip("/"))
    return known if isinstance(known, str) else None


@lru_cache(maxsize=16)
def _code_within(function: Any) -> CodeType | None:
    """The code of the `app` that one of FastAPI's functions makes; None where the function is not FastAPI's."""
    function = beneath(function)
    if not is_frameworks(function):
        return None
    return next(
        (each for each in function.__code__.co_consts if isinstance(each, CodeType) and each.co_name == "app"), None
    )


def _held(made: Any, name: str) -> Any:
    """What a function that another one made was given under a name."""
    cells = dict(zip(made.__code__.co_freevars, made.__closure__ or (), strict=True))
    return cells[name].cell_contents if name in cells else None


def is_fastapis(app: Any) -> bool:
    """Whether an ASGI app for a route is FastAPI's own."""
    return type(app) is FunctionType and app.__code__ is _code_within(fastapi_routing.request_response)


def handler_of(app: Any) -> Any:
    """What FastAPI's own ASGI app for a route calls with the request; None where the app is not FastAPI's."""
    if not is_fastapis(app):
        return None
    return beneath(beneath_hook(_held(app, "f")))


def dependant_of(handler: Any) -> Dependant | None:
    """What FastAPI's own handler solves and calls; None where the handler is not FastAPI's."""
    if type(handler) is not FunctionType or handler.__code__ is not _code_within(fastapi_routing.get_request_handler):
        return None
    return cast("Dependant | None", _held(handler, "dependant"))


def handler_places(route: EffectiveRoute) -> Iterator[tuple[Any, Callable[[Any], None]]]:
    """The places that hold the handler which FastAPI made for a route's own dependant, each with a setter."""
    step: Any = app_of(route)
    while step is not None and handler_of(step) is None:
        step = getattr(step, "app", None)
    if step is not None:
        yield from places_of(step, lambda held: dependant_of(held) is route.dependant)


def hook_handler(route: EffectiveRoute, refused: Refused) -> None:
    """Put a hook in place of the handler that FastAPI made for a route, once; `refused` is told what is not valid."""
    for held, put in [*handler_places(route)]:
        if type(held) is not HandlerHook:
            put(HandlerHook(held, refused))


def original_of(route: EffectiveRoute) -> APIRoute:
    """The route as it was declared."""
    return cast("APIRoute", getattr(route, "original_route", route))


def app_of(route: EffectiveRoute) -> Any:
    """The ASGI app that answers for a route; an include of an older FastAPI leaves it to the route as declared."""
    return getattr(route, "app", None) or original_of(route).app


def included_routers(routes: Sequence[BaseRoute]) -> Iterator[tuple[Any, Sequence[Any]]]:
    """The routers included below, at any depth, each with the dependencies its include adds."""
    for route in routes:
        router: Any = getattr(route, "original_router", None)
        if router is not None:
            context: Any = getattr(route, "include_context", None)
            yield router, context.dependencies
            yield from included_routers(router.routes)


def scopes_of(dependant: Dependant) -> frozenset[str]:
    """The security scopes that tell this node from another of the same callable, as FastAPI counts them."""
    if not _uses_scopes(dependant):
        return frozenset()
    return frozenset(dependant.parent_oauth_scopes or ()) | frozenset(dependant.own_oauth_scopes or ())


@once
def _uses_scopes(dependant: Dependant) -> bool:
    return (
        bool(dependant.own_oauth_scopes)
        or dependant.security_scopes_param_name is not None
        or security_scheme(dependant.call) is not None
        or any(_uses_scopes(child) for child in dependant.dependencies)
    )


def replacement(dependant: Dependant, call: Callable[..., Any]) -> Dependant:
    """The node that FastAPI solves in this one's place while overrides are set."""
    inherited = [*(dependant.parent_oauth_scopes or ())]
    inherited += [scope for scope in dependant.own_oauth_scopes or () if scope not in inherited]
    return get_dependant(
        path=dependant.path or "",
        call=call,
        name=dependant.name,
        parent_oauth_scopes=inherited,
        scope=dependant.scope,
    )


def _bare(call: Any) -> Any:
    while isinstance(call, partial):
        call = cast("Any", call.func)
    return call


def security_scheme(call: object) -> SecurityBase | None:
    """The security scheme that a callable is, also under `partial` and `functools.wraps`."""
    bare = inspect.unwrap(_bare(call))
    return bare if isinstance(bare, SecurityBase) else None


def is_late(dependant: Dependant) -> bool:
    """Whether the node is a `yield` dependency that exits after the response is sent."""
    return dependant.scope != "function" and _is_generator(dependant.call)


def exit_of(dependant: Dependant) -> str:
    """When the node exits, which also tells it from another of the same callable, as FastAPI counts them."""
    return dependant.scope or ("request" if _is_generator(dependant.call) else "")


@once
def _is_generator(call: Any) -> bool:
    bare = _bare(call)
    faces = [bare, inspect.unwrap(bare)]
    if not inspect.isclass(faces[1]):
        faces += [_bare(getattr(face, "__call__", None)) for face in faces]  # noqa: B004
        faces += [inspect.unwrap(face) for face in faces[2:] if face is not None]
    return any(inspect.isgeneratorfunction(face) or inspect.isasyncgenfunction(face) for face in faces)


def solve_fields(fields: Sequence[Any], received: Mapping[str, Any]) -> tuple[Mapping[str, Any], Sequence[Any]]:
    """The validated values of a node's parameters by name, but for those of the content, and what is not valid."""
    return request_params_to_args(fields, received)


def is_of_dependencies(error: BaseException) -> bool:
    """Whether an exception was raised by a route's dependencies, or says what they were given is not valid."""
    if isinstance(error, RequestValidationError):
        return True
    step = error.__traceback__
    while step is not None:
        if step.tb_frame.f_code is solve_dependencies.__code__:
            return True
        step = step.tb_next
    return False
