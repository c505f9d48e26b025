"""Requests whose covers may be solved before the app has them, because it is known what the app would do until then.

What FastAPI has made of a request when it comes to its route is learned from one that took the ordinary way. The next
one for the same path is given the same, if the routes and the layers are still what they were.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.routing import Router
from starlette.types import Scope

from fastapi_cacheinval.core.keys import KeyFrame
from fastapi_cacheinval.dependencies import SCOPE_KEY, Cached
from fastapi_cacheinval.routes.fastapi_private import effective_route_at
from fastapi_cacheinval.routes.fastapi_solver import CoverSolver, solver_is_known
from fastapi_cacheinval.routes.handler_hook import Handler
from fastapi_cacheinval.routes.layer_kinds import kind_of, lets_gets_through
from fastapi_cacheinval.routes.middleware_stack import steps_from
from fastapi_cacheinval.routes.own_code import is_frameworks
from fastapi_cacheinval.routes.plan import RoutePlan, Sharing
from fastapi_cacheinval.routes.route_levels import Known
from fastapi_cacheinval.routes.route_tree import Survey
from fastapi_cacheinval.routes.table import RouteTable

__all__ = ["Shortcut", "Shortcuts"]

_MOST_PATHS = 4096
_LONGEST_PATH = 256
# What the app's own layers and its router write into a scope, the same for each request for a path.
_WRITTEN = frozenset({"starlette.exception_handlers", "router", "endpoint", "path_params", "route", "fastapi"})
# What is each request's own.
_OWN = frozenset({SCOPE_KEY, "state", "fastapi_middleware_astack", "fastapi_inner_astack", "fastapi_function_astack"})
# A request that says that it has content may be refused for that before its route is asked.
_CONTENT = frozenset({b"content-length", b"transfer-encoding", b"expect"})


@dataclass(frozen=True, slots=True, eq=False)
class Shortcut:
    """What is known of the requests for one path.

    The route's plan, its covers, what FastAPI writes into a scope, and what the keys of its responses have in common.
    """

    plan: RoutePlan
    cached: Cached
    solver: CoverSolver
    known: Known
    written: Mapping[str, Any]
    frames: dict[tuple[object, ...], KeyFrame] = field(default_factory=dict[tuple[object, ...], KeyFrame])

    def write(self, scope: Scope) -> None:
        """Make the scope what it is when the request comes to its route."""
        scope.update(self.written)
        # Dependencies may write into these two.
        scope["path_params"] = {**self.written["path_params"]}
        if "fastapi" in self.written:
            scope["fastapi"] = {**self.written["fastapi"]}

    def take_back(self, scope: Scope) -> None:
        """Make the scope what it was, so that the app finds its own way."""
        for name in self.written:
            scope.pop(name, None)


class Shortcuts:
    """What was learned of one application's paths, as long as its routes are the same."""

    def __init__(self, app: Any, table: RouteTable) -> None:
        self._table = table
        self._app = app
        self._survey: Survey = table.survey
        # By path and root path; None where a request has to take the ordinary way.
        self.paths: dict[tuple[str, str], Shortcut | None] = {}
        self._solvers: dict[int, CoverSolver | None] = {}
        # The handlers whose hits the front lookup answers: only what it lacks comes here.
        self._at_front: set[Handler] = set()
        # Whether a path alone says what routes are given of it, and no layer stops any; asked once for each survey.
        self._fixed: bool | None = None

    def of(self, scope: Scope) -> Shortcut | None:
        """What is known of the path of a GET; None where the request has to take the ordinary way."""
        found = self.paths.get((scope["path"], scope.get("root_path", "")))
        if found is None or not self.holds(found) or not _WRITTEN.isdisjoint(scope):
            return None
        for name, _ in scope["headers"]:
            if name in _CONTENT:
                return None
        return found

    def holds(self, shortcut: Shortcut) -> bool:
        """Whether routes, layers and FastAPI are what they were when it was learned, and nothing is overridden."""
        survey = self._table.survey
        if survey is not self._survey or survey.changed or shortcut.known.changed or shortcut.solver.changed:
            return False
        # A loop and no generator: this is on the path of every route hit.
        for provider in self._table.providers:
            if provider.dependency_overrides:
                return False
        return solver_is_known()

    def learn(self, scope: Scope, arrived: Mapping[str, Any], handler: Handler, *, answered: bool = False) -> None:
        """A request has come to FastAPI's handler; `arrived` is what it was before the app had it.

        `answered` says that something stored has answered it there. A route of the front lookup is learned only from
        such a request: its other misses, of which each may have a path of its own, would pay for nothing.
        """
        survey = self._table.survey
        if survey is not self._survey:
            self._survey = survey
            self.paths, self._solvers, self._at_front, self._fixed = {}, {}, set(), None
        if answered is not (handler in self._at_front):
            return
        asked = (arrived["path"], arrived.get("root_path", ""))
        if asked in self.paths or len(asked[0]) > _LONGEST_PATH or scope["method"] != "GET":
            return
        known = self._taken(survey, scope, arrived)
        if known is not None and known.analysis.plan.front and not answered:
            self._at_front.add(handler)
            return
        if len(self.paths) >= _MOST_PATHS:
            self.paths = {}
        self.paths[asked] = None if known is None else self._learned(survey, known, scope, arrived, handler)

    def _taken(self, survey: Survey, scope: Scope, arrived: Mapping[str, Any]) -> Known | None:
        """The route that the request has come to, where it is the one to which its path leads."""
        route = effective_route_at(scope)
        known = None if route is None or not survey.by_path else survey.taken(route, scope, arrived)
        return known if known is not None and known.route is route else None

    def _learned(
        self, survey: Survey, known: Known, scope: Scope, arrived: Mapping[str, Any], handler: Handler
    ) -> Shortcut | None:
        plan = known.analysis.plan
        if scope.get("app") is not arrived.get("app"):
            return None
        if plan.policy is None or plan.cached is None or plan.sharing is Sharing.UNPROVED:
            return None
        if plan.layered or plan.layers or plan.around or plan.epoch:
            return None
        if not self._gives_the_same(survey) or "app_root_path" in arrived or not _WRITTEN.isdisjoint(arrived):
            return None
        own = {name: value for name, value in scope.items() if name not in _OWN}
        written = {name: value for name, value in own.items() if name in _WRITTEN}
        left = own.keys() - written.keys()
        # Starlette makes another list of the same fields.
        if "path_params" not in written or scope["headers"] != arrived["headers"]:
            return None
        if any(arrived.get(name, SCOPE_KEY) is not own[name] for name in left - {"headers"}):
            return None
        solver = self._solver(known)
        if solver is None or solver.handler is not handler:
            return None
        return Shortcut(plan, plan.cached, solver, known, written)

    def _solver(self, known: Known) -> CoverSolver | None:
        key = id(known)
        if key not in self._solvers:
            self._solvers[key] = CoverSolver.of(known.route, known.analysis.plan.cached)
        return self._solvers[key]

    def _gives_the_same(self, survey: Survey) -> bool:
        """Whether no route makes anything else of a path than it did before, and nothing on the way refuses it."""
        if self._fixed is None:
            routes: list[Any] = [*(known.route for known in survey.known), *survey.others]
            convertors = (each for route in routes for each in getattr(route, "param_convertors", {}).values())
            self._fixed = all(map(_is_stock, convertors)) and self._lets_through()
        return self._fixed

    def _lets_through(self) -> bool:
        """Whether each layer inside lets every GET without content through."""
        return all(isinstance(step, Router) or lets_gets_through(kind_of(step)) for step in steps_from(self._app))


def _is_stock(convertor: object) -> bool:
    """Whether a convertor of paths is Starlette's, and gives the same for the same path each time."""
    own: Mapping[str, Any] = getattr(convertor, "__dict__", {})
    return "convert" not in own and is_frameworks(getattr(convertor.__class__, "convert", None))
