"""The ways to each route, analysed: what holds for a route that is reached by several is the worst of all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from fastapi_cacheinval.routes.analysis import analyse
from fastapi_cacheinval.routes.other_ways import mind_others
from fastapi_cacheinval.routes.place import Place
from fastapi_cacheinval.routes.route_levels import Known, Way

__all__ = ["analysed"]


def analysed(found: Sequence[Way], again: Mapping[int, Sequence[Place]]) -> dict[int, tuple[Known, ...]]:
    """Analyse the routes of all ways, each noted in its leaf; given back by the id of the route.

    `again` are the places where an application stands in itself again, by its id.
    """
    together: dict[int, list[Way]] = {}
    for way in found:
        together.setdefault(id(way.route), []).append(way)
    for ways in together.values():
        _worst_of(ways, again)
    _number_twins(found)
    mind_others(found)
    return {key: tuple(way.leaf.known for way in ways if way.leaf.known) for key, ways in together.items()}


def _worst_of(ways: Sequence[Way], again: Mapping[int, Sequence[Place]]) -> None:
    """Analyse a route by each of its ways, with what holds for the worst of them."""
    more = [place for way in ways for app in way.above for place in again.get(app, ())]
    worst = Place.worst_of([*(way.place for way in ways), *more])
    for way in ways:
        place = replace(worst, prefix=way.place.prefix, under=way.place.under)
        way.leaf.known = Known(way.route, place, analyse(way.route, place, {}))


def _number_twins(found: Sequence[Way]) -> None:
    """Give a number to each cached route that another one is the same as by all that every process knows."""
    cached = [(way.leaf, known) for way in found if (known := way.leaf.known) and known.analysis.plan.policy]
    count = Counter(known.analysis.plan.identity for _, known in cached)
    for number, (leaf, known) in enumerate(cached, 1):
        if count[known.analysis.plan.identity] > 1:
            analysis = replace(known.analysis, plan=replace(known.analysis.plan, ordinal=number))
            leaf.known = replace(known, place=replace(known.place, ordinal=number), analysis=analysis)
