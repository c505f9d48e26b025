"""Plans beside the tree at rest: under overrides, of strays; and what the paths of all cached routes begin with."""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import replace
from itertools import count
from typing import Any

from fastapi_cacheinval.routes.analysis import analyse
from fastapi_cacheinval.routes.cover_order import order_covers
from fastapi_cacheinval.routes.dependency_tree import Overrides
from fastapi_cacheinval.routes.fastapi_private import EffectiveRoute
from fastapi_cacheinval.routes.hooks import hook_known
from fastapi_cacheinval.routes.place import Place, own_number
from fastapi_cacheinval.routes.route_levels import Known, watched_of
from fastapi_cacheinval.routes.route_tree import Survey

__all__ = ["OverriddenPlans", "Strays", "starts_of"]

logger = logging.getLogger("fastapi_cacheinval.routes")

# Process-wide: a table made anew must not give a number that stored responses of another set carry.
_epochs = count(1)
_STATES_KEPT = 8
# To compare a path with more costs as much as to let it go the long way.
_STARTS_MOST = 32
_MOST_STRAYS = 1024
_STRAY = "it was not among the routes at start"


class _Asked:
    """Overrides that note what they were asked for, and what they gave: they may give more than they list."""

    def __init__(self, overrides: Overrides) -> None:
        self._overrides = overrides
        self._calls: list[Any] = []
        self._given: list[Any] = []

    def get(self, call: Any, otherwise: Any, /) -> Any:
        given = self._overrides.get(call, otherwise)
        self._calls.append(call)
        self._given.append(given)
        return given

    def is_as(self, overrides: Overrides) -> bool:
        """Whether these give the same for the same."""
        return [overrides.get(call, call) for call in self._calls] == self._given


class OverriddenPlans:
    """The plans of routes under the last states of the overrides; each state that a route asks has its own number."""

    def __init__(self) -> None:
        self._kept: dict[tuple[int, str, int], deque[tuple[_Asked, Known]]] = {}

    def of(self, known: Known, overrides: Overrides) -> Known:
        """A route as it answers while the overrides are as they are now."""
        plan = known.analysis.plan
        kept = self._kept.setdefault((id(known.route), plan.path, known.place.ordinal), deque(maxlen=_STATES_KEPT))
        for before, made in kept:
            if before.is_as(overrides):
                return made
        asked = _Asked(overrides)
        made = replace(known, analysis=analyse(known.route, known.place, asked, next(_epochs), plan))
        hook_known(made)
        kept.appendleft((asked, made))
        return made

    def clear(self) -> None:
        """Forget all."""
        self._kept.clear()


def starts_of(survey: Survey) -> tuple[str, ...] | None:
    """What the path of a cached route begins with; None where paths do not tell."""
    plans = [known.analysis.plan for known in survey.known]
    # What leaves as private has to go past what makes it so.
    cached = [plan for plan in plans if plan.policy is not None or plan.private]
    # A layer may make an unsafe request of a GET, wherever that leads.
    if not survey.plain or survey.layered:
        return None
    starts: list[str] = []
    for start in sorted({plan.path.partition("{")[0] for plan in cached}):
        # Sorted, what begins with another follows it.
        if not starts or not start.startswith(starts[-1]):
            starts.append(start)
    return tuple(starts) if len(starts) <= _STARTS_MOST else None


class Strays:
    """Routes that requests have come to, and that are not in the tree of routes.

    Each is analysed by itself when it is met; what it answers is kept in this process alone.
    """

    def __init__(self) -> None:
        self._met: dict[int, Known] = {}

    def known(self, route: EffectiveRoute) -> Known | None:
        """The route as it was met before; None for the first time, and where it is something else by now."""
        known = self._met.get(id(route))
        return None if known is None or known.changed else known

    def meet(self, route: EffectiveRoute) -> Known:
        """Analyse a route that is not known, and remember it."""
        logger.info(
            "%s was not among the routes at the start: what it answers is kept in this process, and not shared with "
            "replicas, because other processes may know another route by its name",
            route.path_format,
        )
        order_covers(route.dependant)
        place = Place(
            front_off=_STRAY,
            origin=True,
            commits=True,
            ordinal=own_number(),
            layers=(_STRAY,),
            watched=watched_of(route),
        )
        if len(self._met) >= _MOST_STRAYS:
            self._met.clear()
        known = self._met[id(route)] = Known(route, place, analyse(route, place, {}))
        return known

    def clear(self) -> None:
        """Forget all."""
        self._met.clear()
