"""The app's routes in matching order, each with its plan."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

from starlette.routing import BaseRoute, Route

from fastapi_cacheinval.routes.analysis import Place, analyse
from fastapi_cacheinval.routes.arrival import note_calls
from fastapi_cacheinval.routes.fastapi_private import EffectiveRoute, effective_route_at, original_of
from fastapi_cacheinval.routes.middleware_stack import MiddlewareStack
from fastapi_cacheinval.routes.plan import SAFE_METHODS, RoutePlan
from fastapi_cacheinval.routes.route_hook import hook
from fastapi_cacheinval.routes.route_tree import Known, Survey

__all__ = ["RouteTable"]

logger = logging.getLogger("fastapi_cacheinval.routes")

# Process-wide: a table made anew must not give a number that stored responses of another set carry.
_epochs = count(1)
_strays = count(1)
_SETS_KEPT = 8
_STRAYS_KEPT = 1024
# To compare a path with more costs as much as to let it go the long way.
_STARTS_MOST = 32


@dataclass(frozen=True, slots=True, eq=False)
class _OverrideSet:
    """One state of the overrides, and the plans made under it."""

    overrides: Mapping[Any, Any]
    epoch: int
    known: dict[int, Known] = field(default_factory=dict[int, Known])


def _safe(route: BaseRoute) -> bool:
    return isinstance(route, Route) and frozenset(route.methods or "*") <= SAFE_METHODS


class RouteTable:
    """The plans of all routes of an application, of its includes at any depth and of the apps mounted in it.

    Built at start; routes added later are found when the number of routes has changed, or at their first use.
    `front=True` is the author's word for the middleware inside ours; that of mounted apps still counts.
    """

    def __init__(self, app: Any, inside: MiddlewareStack, *, front: bool | None = None) -> None:
        self._app = inside.app if app is None else app
        self._inside = inside
        self._off: str | None = None
        if front is False:
            self._off = "front=False"
        elif not inside.harmless and front is not True:
            self._off = inside.reason
        self._overridden: deque[_OverrideSet] = deque(maxlen=_SETS_KEPT)
        self._strays: dict[int, Known] = {}
        # Each that holds `dependency_overrides`, once; it only grows, because others may be reading it.
        self.providers: list[Any] = []
        # What the path of a cached route begins with; None where paths do not tell.
        self._starts: tuple[str, ...] | None = ()
        self._whole = False
        self._survey = self._fresh()

    def _fresh(self) -> Survey:
        inside = self._inside
        place = Place(front_off=self._off, origin=inside.cors, commits=not inside.harmless, layers=inside.layers)
        survey = Survey(self._app, place)
        self._whole = survey.whole
        for route in survey.others:
            # Where a layer may change the method, a read has to be told from what it came as.
            if survey.layered or not _safe(route):
                self._whole = hook(route) and self._whole
        for known in survey.known.values():
            self._hook(known, always=survey.layered)
            provider = known.analysis.plan.provider
            if provider is not None and not any(provider is other for other in self.providers):
                self.providers.append(provider)
        if self._starts is not None:
            self._starts = self._starts_of(survey)
        return survey

    def passes(self, path: str) -> bool:
        """Whether no cached route can have this path, which is one without a root path."""
        starts = self._starts
        if starts is None or path.startswith(starts):
            return False
        if self._survey.outdated:
            self._refresh()
            return False
        return True

    def doubt(self) -> None:
        """A cached route had a path that none could have: paths do not tell any longer."""
        self._starts = None

    def _starts_of(self, survey: Survey) -> tuple[str, ...] | None:
        cached = [known.analysis.plan for known in survey.known.values() if known.analysis.plan.policy is not None]
        # A layer may make an unsafe request of a GET, wherever that leads.
        if not survey.plain or survey.layered:
            return None
        starts: list[str] = []
        for start in sorted({plan.path.partition("{")[0] for plan in cached}):
            # Sorted, what begins with another follows it.
            if not starts or not start.startswith(starts[-1]):
                starts.append(start)
        return tuple(starts) if len(starts) <= _STARTS_MOST else None

    @property
    def plans(self) -> tuple[RoutePlan, ...]:
        """Every FastAPI route's plan, in matching order, overrides aside."""
        return tuple(known.analysis.plan for known in self._survey.known.values())

    def names(self) -> list[str]:
        """The routes that concern a cache, each by template and handler; all of them where none does."""
        concerned = [plan for plan in self.plans if plan.policy is not None or plan.invalidations]
        return [f"{plan.path} ({plan.endpoint})" for plan in concerned or self.plans]

    def audit(self) -> None:
        """Raise the first `CallerDependentRoute` or other `ConfigurationError`, in matching order."""
        for known in self._survey.known.values():
            for error in known.analysis.errors:
                raise error

    def warnings(self) -> list[str]:
        """What works, but not as its author will expect."""
        lines = [line for known in self._survey.known.values() for line in known.analysis.warnings]
        return [*lines, *self._survey.notices]

    def describe(self) -> list[str]:
        """What turned the front lookup off, and where."""
        plans = [plan for plan in self.plans if plan.policy is not None]
        if self._off is not None:
            return [f"The front lookup is off for the whole app: {self._off}."] if plans else []
        return [f"The front lookup is off for {plan.path}: {plan.front_off}." for plan in plans if not plan.front]

    def plan_for(self, scope: Mapping[str, Any]) -> RoutePlan | None:
        """The plan of the route that answers, asked from inside it; None where no FastAPI route does."""
        route = effective_route_at(scope)
        if route is None:
            return None
        return self._current(self._survey.known.get(id(route)) or self._strays.get(id(route)) or self._meet(route))

    def sees_all(self) -> bool:
        """Whether each route that can be given an unsafe request is one that notes its arrival, from now on."""
        self._refresh()
        return self._whole

    def has(self, app: object) -> bool:
        """Whether this is one of the applications whose routes are here, or none at all."""
        return app is None or any(app is known for known in self._survey.apps)

    def match(self, method: str, path: str, scope: Mapping[str, Any]) -> RoutePlan | None:
        """The plan that would answer this method and decoded path, which includes the root path if there is one.

        `scope` gives the root path and the headers as they came in, before any mount wrote into it. None
        where no route, or none of FastAPI's, would answer with the method.
        """
        self._refresh()
        known = self._survey.find(method, path, dict(scope))
        return None if known is None else self._current(known)

    def answers(self, method: str, path: str, scope: Mapping[str, Any]) -> bool:
        """Whether any route, FastAPI's or not, would answer this method and decoded path; `scope` as for `match`."""
        self._refresh()
        return self._survey.answered(method, path, dict(scope))

    def _current(self, known: Known) -> RoutePlan:
        """The plan, or that of the overridden tree while dependencies are overridden."""
        provider: Any = known.analysis.plan.provider
        overrides = getattr(provider, "dependency_overrides", None)
        if not overrides:
            return known.analysis.plan
        state = self._state(overrides)
        kept = state.known.get(id(known.route))
        if kept is None:
            analysis = analyse(known.route, known.place, state.overrides, state.epoch, known.analysis.plan)
            kept = state.known[id(known.route)] = replace(known, analysis=analysis)
            self._hook(kept)
        return kept.analysis.plan

    def _state(self, overrides: Mapping[Any, Any]) -> _OverrideSet:
        for state in self._overridden:
            if state.overrides == overrides:
                return state
        state = _OverrideSet(dict(overrides), next(_epochs))
        self._overridden.appendleft(state)
        return state

    def meet_websocket(self) -> None:
        """A WebSocket is coming in: its route may have been added since the routes were looked at."""
        self._refresh()

    def _refresh(self) -> None:
        """Look at the routes again where some were added or removed."""
        if not self._survey.outdated:
            return
        before = self._survey
        self._survey = self._fresh()
        self._strays.clear()
        for state in self._overridden:
            state.known.clear()
        for key, known in self._survey.known.items():
            if key not in before.known:
                self._tell(known)
        for line in self._survey.notices:
            logger.warning("%s", line)

    def _meet(self, route: EffectiveRoute) -> Known:
        """A route seen for the first time on a request."""
        self._refresh()
        found = self._survey.known.get(id(route))
        if found is not None:
            return found
        logger.info(
            "%s was not among the routes at the start: what it answers is kept in this process, and not shared with "
            "replicas, because other processes may know another route by its name",
            route.path_format,
        )
        stray = "it was not among the routes at start"
        place = Place(front_off=stray, origin=True, commits=True, ordinal=-next(_strays), layers=(stray,))
        known = Known(route, place, analyse(route, place, {}))
        self._hook(known)
        self._tell(known)
        if len(self._strays) >= _STRAYS_KEPT:
            self._strays.clear()
        self._strays[id(route)] = known
        return known

    @staticmethod
    def _hook(known: Known, *, always: bool = False) -> None:
        plan = known.analysis.plan
        unsafe = not plan.methods <= SAFE_METHODS
        if always or plan.layered or unsafe:
            hook(original_of(known.route))
        if unsafe:
            note_calls(known.route)

    @staticmethod
    def _tell(known: Known) -> None:
        for error in known.analysis.errors:
            logger.error("A route added after the start is not cached: %s", error)
