"""The covers of a route, solved as FastAPI's solver does it, and FastAPI's own handler, which goes on from there.

FastAPI does not document its solver (`fastapi_private` says what else we touch). It looks at each node anew for each
request, which takes most of the time of a small route. Here that is done once for a route, and for those nodes alone
that need nothing but parameters, security schemes and what other nodes gave. Where FastAPI's solver is not as it is
known here, or where a tool has put its own in that place, nothing is solved here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, fields
from types import FunctionType
from typing import Any, cast

from fastapi import routing as fastapi_routing
from fastapi.dependencies import models
from fastapi.dependencies import utils as fastapi_utils
from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import solve_dependencies
from fastapi.security import SecurityScopes
from starlette.requests import Request
from starlette.responses import Response

from fastapi_cacheinval.routes.fastapi_private import EffectiveRoute, exit_of, handler_places, security_scheme
from fastapi_cacheinval.routes.handler_hook import Handler, beneath_hook
from fastapi_cacheinval.routes.own_code import is_frameworks

__all__ = ["CoverSolver", "Handed", "solver_is_known"]

_NAME = "solve_dependencies"
# A node's parameters, and where in the request they are read.
_READ = {
    "path_params": "path_params",
    "query_params": "query_params",
    "header_params": "headers",
    "cookie_params": "cookies",
}
# What a node has, of the FastAPIs that are known.
_FIELDS = frozenset(
    {
        *_READ,
        "background_tasks_param_name",
        "body_params",
        "call",
        "concurrency",
        "dependencies",
        "http_connection_param_name",
        "name",
        "own_oauth_scopes",
        "parent_oauth_scopes",
        "path",
        "request_param_name",
        "response_param_name",
        "scope",
        "security_scopes_param_name",
        "use_cache",
        "websocket_param_name",
    }
)
# Those that a cover which is solved here does not have: they belong to the answer, to the content, or to other nodes.
_LEFT = ("background_tasks_param_name", "body_params", "concurrency", "response_param_name")
# What FastAPI's solver names beside them: a name that is not here is something that it has learned to do.
_NAMES = frozenset(
    """
    Any AsyncExitStack BackgroundTasks Callable Request Response SecurityScopes SolvedDependency WebSocket
    _get_cache_key _get_oauth_scopes _is_async_gen_callable _is_coroutine_callable _is_gen_callable
    _solve_generator background_tasks cache_key cast cookies dependency_overrides errors extend get get_dependant
    get_semaphore getattr headers is_async_gen_callable is_coroutine_callable is_gen_callable isinstance
    oauth_scopes request_body_to_args request_params_to_args run_in_threadpool solve_dependencies status_code
    update values
    """.split()  # noqa: SIM905
)

_KNOWN = {each.name for each in fields(cast("Any", Dependant))} <= _FIELDS and frozenset(
    solve_dependencies.__code__.co_names
) <= _FIELDS | _NAMES


def solver_is_known() -> bool:
    """Whether FastAPI's handlers call FastAPI's solver, and that is known here; asked for each request."""
    return _KNOWN and vars(fastapi_routing)[_NAME] is solve_dependencies


def _key_of(node: Dependant) -> Any:
    """By what FastAPI tells whether two nodes are one."""
    private: Any = models
    if hasattr(private, "_get_cache_key"):
        return private._get_cache_key(dependant=node)  # noqa: SLF001
    return cast("Any", node).cache_key


def _is_awaited(node: Dependant) -> bool:
    """Whether FastAPI awaits what a node's call gives; it runs others in a thread."""
    private: Any = models
    if hasattr(private, "_is_coroutine_callable"):
        return bool(private._is_coroutine_callable(node.call))  # noqa: SLF001
    return bool(cast("Any", node).is_coroutine_callable)


def _nodes(dependant: Dependant) -> Iterator[Dependant]:
    """What is below a node, each after what it needs."""
    for child in dependant.dependencies:
        yield from _nodes(child)
        yield child


def _is_stock_scheme(node: Dependant) -> bool:
    """Whether a node is one of FastAPI's security schemes, which read fields of the request and nothing else."""
    call: Any = node.call
    scheme = security_scheme(call)
    return scheme is not None and scheme is call and is_frameworks(type(scheme).__call__)


def _is_plain(node: Dependant) -> bool:
    """Whether a node is called once, has no exit, and needs no more than can be given here."""
    if not node.use_cache or node.call is None or exit_of(node):
        return False
    # With the whole request it may read, and write, what is there only at the route.
    if (node.request_param_name or node.http_connection_param_name) and not _is_stock_scheme(node):
        return False
    return not any(getattr(node, name, None) for name in _LEFT)


def _below(node: Dependant, slots: Mapping[Any, int]) -> tuple[tuple[str, int], ...]:
    """By which names a node is given what is in which slots."""
    return tuple((child.name, slots[_key_of(child)]) for child in node.dependencies if child.name is not None)


@dataclass(frozen=True, slots=True, eq=False)
class _Step:
    """One node, ready to be solved: `below` are the slots of what it is given, `reads` its parameters."""

    node: Dependant
    key: Any
    call: Any
    awaited: bool
    below: tuple[tuple[str, int], ...]
    reads: tuple[tuple[Sequence[Any], str], ...]
    handed: tuple[str, ...]
    scopes: tuple[str, tuple[str, ...]] | None

    @classmethod
    def of(cls, node: Dependant, slots: Mapping[Any, int]) -> _Step:
        reads = tuple((getattr(node, name), read) for name, read in _READ.items() if getattr(node, name))
        handed = tuple(filter(None, (node.http_connection_param_name, node.request_param_name)))
        inherited = [*(node.parent_oauth_scopes or ())]
        inherited += [scope for scope in node.own_oauth_scopes or () if scope not in inherited]
        named = node.security_scopes_param_name
        scopes = None if named is None else (named, tuple(inherited))
        return cls(node, _key_of(node), node.call, _is_awaited(node), _below(node, slots), reads, handed, scopes)

    def given(self, request: Request, values: Sequence[Any]) -> dict[str, Any] | None:
        """What the node is called with; None where a parameter is not valid."""
        given = {name: values[slot] for name, slot in self.below}
        for declared, read in self.reads:
            found, errors = fastapi_utils.request_params_to_args(declared, getattr(request, read))
            if errors:
                return None
            given.update(found)
        for name in self.handed:
            given[name] = request
        if self.scopes is not None:
            name, scopes = self.scopes
            given[name] = SecurityScopes(scopes=[*scopes])
        return given


@dataclass(slots=True, eq=False)
class Handed:
    """What has come of a route's covers: FastAPI's handler is given it in place of solving them again.

    `covers` is what `cached()` is to be given, None where a parameter is not valid or a cover has raised `error`.
    `partition` is what of it goes into the cache key, once that is known.
    """

    solver: CoverSolver
    request: Request
    values: list[Any]
    covers: dict[str, Any] | None = None
    error: Exception | None = None
    partition: tuple[Any, ...] = ()

    async def resume(self, request: Request) -> Response:
        """Run FastAPI's handler from there, with the request that it is given."""
        handler = cast("Any", self.solver.handler)
        # With all that others have put in place of FastAPI's functions until now.
        names = {**handler.__globals__, _NAME: self._solve_rest}
        resumed = FunctionType(handler.__code__, names, handler.__name__, None, handler.__closure__)
        response: Response = await resumed(request)
        return response

    async def _solve_rest(self, *, dependant: Dependant, **given: Any) -> Any:
        error, self.error = self.error, None
        if error is not None:
            try:
                raise error
            finally:
                # The frame is in the error's traceback.
                del error
        given["dependency_cache"] = self.solver.cache_of(self.values)
        if self.covers is None:
            # What was not valid is said again, with what else is not.
            return await solve_dependencies(dependant=dependant, **given)
        solved = await solve_dependencies(dependant=self.solver.rest, **given)
        solved.values.update(self.solver.given)
        return solved


class CoverSolver:
    """The covers of one route's `cached()`, which is the first of its dependencies.

    `handler` is FastAPI's own, `rest` all that is solved after the covers. `given` is what the endpoint is handed for
    the `cached()` itself, which a parameter may declare.
    """

    __slots__ = ("_covers", "_steps", "given", "handler", "rest")

    def __init__(self, handler: Handler, dependant: Dependant) -> None:
        node, *others = dependant.dependencies
        self.handler = handler
        self.rest = copy(dependant)
        self.rest.dependencies = others
        self.given: Mapping[str, None] = {} if node.name is None else {node.name: None}
        steps: list[_Step] = []
        slots: dict[Any, int] = {}
        for each in _nodes(node):
            key = _key_of(each)
            if key not in slots:
                slots[key] = len(steps)
                steps.append(_Step.of(each, slots))
        self._steps = tuple(steps)
        self._covers = _below(node, slots)

    @classmethod
    def of(cls, route: EffectiveRoute, cached: object) -> CoverSolver | None:
        """Those of a route whose policy `cached` declares; None where anything is not as it is known here."""
        dependant = route.dependant
        # Declared more than once, FastAPI would find in its memo that it has been called.
        calls = [node.call for node in _nodes(dependant) if node.call is cached]
        if not _KNOWN or len(calls) != 1 or dependant.dependencies[0].call is not cached:
            return None
        covers = dependant.dependencies[0]
        if not all(map(_is_plain, _nodes(covers))):
            return None
        handlers: list[Any] = [beneath_hook(held) for held, _ in handler_places(route)]
        if len(handlers) != 1 or handlers[0].__globals__ is not vars(fastapi_routing):
            return None
        return cls(handlers[0], dependant) if _NAME in handlers[0].__code__.co_names else None

    @property
    def changed(self) -> bool:
        """Whether something else stands in the place of a cover now; asked for each request."""
        # A loop and no generator: this is on the path of every route hit.
        for step in self._steps:  # noqa: SIM110
            if step.node.call is not step.call:
                return True
        return False

    def cache_of(self, values: Sequence[Any]) -> dict[Any, Any]:
        """FastAPI's memo of what was solved."""
        return {step.key: value for step, value in zip(self._steps, values, strict=False)}

    async def solve(self, request: Request) -> Handed:
        """Run the covers, each once and after what it needs, as FastAPI would; nothing after the first that fails."""
        values: list[Any] = []
        handed = Handed(self, request, values)
        try:
            for step in self._steps:
                given = step.given(request, values)
                if given is None:
                    return handed
                if step.awaited:
                    values.append(await step.call(**given))
                else:
                    values.append(await cast("Any", fastapi_utils).run_in_threadpool(step.call, **given))
        except Exception as error:  # noqa: BLE001 - it is raised again where FastAPI's solver would have raised it
            handed.error = error
        else:
            handed.covers = {name: values[slot] for name, slot in self._covers}
        return handed
