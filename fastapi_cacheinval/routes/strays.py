"""Routes that requests have come to, and that are not in the tree of routes."""

from __future__ import annotations

import logging

from fastapi_cacheinval.routes.analysis import analyse
from fastapi_cacheinval.routes.fastapi_private import EffectiveRoute
from fastapi_cacheinval.routes.place import Place, own_number
from fastapi_cacheinval.routes.route_levels import Known, watched_of

__all__ = ["Strays"]

logger = logging.getLogger("fastapi_cacheinval.routes")

_MOST_KEPT = 1024
_STRAY = "it was not among the routes at start"


class Strays:
    """Each is analysed by itself when it is met; what it answers is kept in this process alone."""

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
        place = Place(
            front_off=_STRAY,
            origin=True,
            commits=True,
            ordinal=own_number(),
            layers=(_STRAY,),
            watched=watched_of(route),
        )
        if len(self._met) >= _MOST_KEPT:
            self._met.clear()
        known = self._met[id(route)] = Known(route, place, analyse(route, place, {}))
        return known

    def clear(self) -> None:
        """Forget all."""
        self._met.clear()
