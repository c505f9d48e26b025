"""Plans beside the tree at rest: under overrides, of strays; and what the paths of all cached routes begin with."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from fastapi_cacheinval.routes.analysis import analyse
from fastapi_cacheinval.routes.cover_order import order_covers
from fastapi_cacheinval.routes.fastapi_private import EffectiveRoute
from fastapi_cacheinval.routes.place import Place, own_number
from fastapi_cacheinval.routes.route_levels import Known, watched_of
from fastapi_cacheinval.routes.route_tree import Survey

__all__ = ["OverrideSets", "Strays", "starts_of"]

logger = logging.getLogger("fastapi_cacheinval.routes")

# Process-wide: a table made anew must not give a number that stored responses of another set carry.
_epochs = count(1)
_SETS_KEPT = 8
# To compare a path with more costs as much as to let it go the long way.
_STARTS_MOST = 32
_MOST_STRAYS = 1024
_STRAY = "it was not among the routes at start"


@dataclass(frozen=True, slots=True, eq=False)
class OverrideSet:
    """One state of the overrides, and the plans made under it."""

    overrides: Mapping[Any, Any]
    epoch: int
    known: dict[tuple[int, str, int], Known] = field(default_factory=dict[tuple[int, str, int], Known])


class OverrideSets:
    """The last states of the overrides."""

    def __init__(self) -> None:
        self._kept: deque[OverrideSet] = deque(maxlen=_SETS_KEPT)

    def of(self, overrides: Mapping[Any, Any]) -> OverrideSet:
        """The one that is as the overrides are now."""
        for state in self._kept:
            if state.overrides == overrides:
                return state
        state = OverrideSet(dict(overrides), next(_epochs))
        self._kept.appendleft(state)
        return state

    def forget_plans(self) -> None:
        """Forget the plans of all; each keeps its number."""
        for state in self._kept:
            state.known.clear()


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
