"""The routes of an application as a tree of levels, each with its entries in matching order.

One route object may stand in the tree several times: an app that is mounted twice, a router that is both mounted and
included, a route that two routers list. What holds for it is then the worst of all its ways.

A request may also come to a route by a way that is not in the tree: behind a function that keeps the app in a closure,
an app that is made at the first request, an endpoint that calls another app. So a way is never taken for granted: the
path that the request had when it arrived has to lead to the route by the tree as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from operator import is_
from typing import Any

from fastapi import routing as fastapi_routing
from fastapi.routing import APIRoute, APIRouter
from starlette import routing
from starlette.routing import BaseRoute

from fastapi_cacheinval.dependencies import Cached, Invalidates, InvalidatesNothing
from fastapi_cacheinval.routes.analysis import analyse
from fastapi_cacheinval.routes.endpoint_calls import put_over
from fastapi_cacheinval.routes.fastapi_private import EffectiveRoute, effective_routes, included_routers
from fastapi_cacheinval.routes.files import is_plain_files
from fastapi_cacheinval.routes.middleware_stack import middleware_stack_of, routes_visibly
from fastapi_cacheinval.routes.place import Place, Watched, own_number
from fastapi_cacheinval.routes.route_layers import own_methods
from fastapi_cacheinval.routes.route_levels import (
    Answering,
    Branch,
    Entry,
    Files,
    Foreign,
    Known,
    Leaf,
    Level,
    Way,
    answering_in,
    for_some_host,
    matches_as_written,
    root_paths_in,
)
from fastapi_cacheinval.routes.ways import analysed
from fastapi_cacheinval.routes.websockets import without_cached

__all__ = ["Answering", "Files", "Known", "Survey"]

# How many paths, and of what length, are remembered with what answers them: most requests are for few of them.
_PATHS_KEPT = 1024
_LONGEST_PATH = 256
_UNSEEN = "a way to it that is not among the routes"
_DECLARED = (Cached, Invalidates, InvalidatesNothing)


class Survey:
    """All routes of an application at one moment, analysed: `known` in matching order, once for each way."""

    def __init__(self, app: Any, place: Place) -> None:
        # Whether the paths of the routes alone say which of them answers.
        self.plain = True
        # What the author of a WebSocket route may not expect; each is said by one survey only.
        self.notices: list[str] = []
        # Whether no route but those in `known` and `others` can be given a request.
        self.whole = True
        # Whether something on the way to any route may make another request of the one it was given.
        self.layered = bool(place.layers)
        # What answers and is none of FastAPI's routes: plain ones, apps of other kinds.
        self.others: list[BaseRoute] = []
        self.apps: list[Any] = []
        # Each list of routes, beside what it held.
        self._lists: list[tuple[list[Any], list[Any]]] = []
        self._listed = Watched()
        # Whether method, path and root path alone say what answers.
        self.by_path = True
        self._answers: dict[tuple[str, str, str], Answering | None] = {}
        self._unseen: dict[int, Known] = {}
        self._found: list[Way] = []
        # The places where an application stands in itself again.
        self._again: dict[int, list[Place]] = {}
        self._top = self._level(app, place, ())
        self._by_route = analysed(self._found, self._again)
        self.known = [way.leaf.known for way in self._found if way.leaf.known is not None]
        self.whole = self.whole and bool(self._lists)

    @property
    def outdated(self) -> bool:
        """Whether some router has more or fewer routes than when this was made."""
        # A loop and no generator: this is on the path of every request for a route without a policy.
        for routes, before in self._lists:  # noqa: SIM110
            if len(routes) != len(before):
                return True
        return False

    @property
    def changed(self) -> bool:
        """Whether some router has other routes than when this was made; asked whenever a route's plan is looked up."""
        # By identity: two routes may be equal and not the same.
        for routes, before in self._lists:
            if len(routes) != len(before) or not all(map(is_, routes, before)):
                return True
        return self._listed.changed

    @property
    def only_grew(self) -> bool:
        """Whether all that has happened to the lists is that routes were added at their ends."""
        grown = all(len(routes) >= len(before) and all(map(is_, routes, before)) for routes, before in self._lists)
        return grown and not self._listed.changed

    def has(self, route: object) -> bool:
        """Whether a route is in the tree."""
        return id(route) in self._by_route

    def taken(self, route: EffectiveRoute, scope: Mapping[str, Any], arrived: Mapping[str, Any] | None) -> Known | None:
        """The way by which a request has come to a route, asked from inside it; None for a route not in the tree.

        The way is known where the path that the request had when it `arrived` leads to this route. Only where unknown
        layers are on all ways, one of which may have rewritten the path, is the present path asked as well. Without
        `arrived` nothing is proved, and only what the route itself says may be used.
        """
        ways = self._by_route.get(id(route), ())
        if not ways:
            return None
        if arrived is None and len(ways) == 1:
            return ways[0]
        if arrived is not None:
            found, came = self.led(arrived), arrived["method"]
            # Where that method is refused, something unknown has asked once more, by another.
            if isinstance(found, Leaf) and found.known in ways and (came == scope["method"] or not found.refuses(came)):
                return found.known
        if arrived is None or ways[0].place.layers:
            for found in self._left(scope["method"], scope["path"], scope):
                if isinstance(found, Leaf) and found.known in ways:
                    return found.known
        return self._unseen.get(id(route)) or self._by_unseen_way(route, ways)

    def _by_unseen_way(self, route: EffectiveRoute, ways: Sequence[Known]) -> Known:
        """The route by a way that cannot be told: anything may stand there, check callers and commit late.

        No template is better than the wrong mount's, and what is stored stays in this process.
        """
        worst = ways[0].place
        place = replace(
            worst,
            prefix="",
            parameters=frozenset(),
            front_off=worst.front_off or _UNSEEN,
            origin=True,
            commits=True,
            ordinal=own_number(),
            layers=(*worst.layers, _UNSEEN),
        )
        known = self._unseen[id(route)] = Known(route, place, analyse(route, place, {}))
        return known

    def find(self, method: str, path: str, scope: Mapping[str, Any]) -> Known | None:
        """What would answer the method and path; None where nothing of FastAPI's would."""
        answering = self._answering(method, path, scope)
        return answering.known if isinstance(answering, Leaf) and not answering.refuses(method) else None

    def answered(self, method: str, path: str, scope: Mapping[str, Any]) -> bool:
        """Whether any route, FastAPI's or not, would answer the method and path."""
        answering = self._answering(method, path, scope)
        return answering is not None and not (isinstance(answering, Leaf) and answering.refuses(method))

    def may_answer(
        self, path: str, arrived: Mapping[str, Any], at: Mapping[str, Any] | None, counts: Callable[[Known], bool]
    ) -> bool:
        """Whether a route that counts may answer GET of a path, by the way of a request that `arrived`.

        It is `at` a route by now, if at any: there layers may have made another request of it, as `taken` has it.
        """
        found = self._answering("GET", path, arrived)
        if isinstance(found, Leaf) and found.known is not None and counts(found.known):
            return True
        others: list[Answering | None] = []
        if not self.by_path:
            others += for_some_host(self._top, str(self._top.root_path or arrived.get("root_path", "")), path)
        if self.layered and at is not None:
            others += self._left("GET", path, at)
        known = filter(None, (each.known for each in others if isinstance(each, Leaf))) if others else ()
        return any(map(counts, known))

    def _left(self, method: str, path: str, at: Mapping[str, Any]) -> Iterator[Answering | None]:
        """What would answer, by the root paths that layers may have left a request with that is at a route by now."""
        asked = {**at, "method": method, "path": path}
        return (answering_in(self._top, root_path, asked) for root_path in root_paths_in(at))

    def _answering(self, method: str, path: str, scope: Mapping[str, Any]) -> Answering | None:
        root_path = self._top.root_path or str(scope.get("root_path", ""))
        return answering_in(self._top, root_path, {**scope, "method": method, "path": path})

    def led(self, arrived: Mapping[str, Any]) -> Answering | None:
        """What answers a request as it arrived, if only with 405; asked at each lookup, so the last paths are kept."""
        method, path = arrived["method"], arrived["path"]
        if not self.by_path or len(path) > _LONGEST_PATH:
            return self._answering(method, path, arrived)
        asked = (method, path, str(arrived.get("root_path", "")))
        answers = self._answers
        if asked not in answers:
            if len(answers) >= _PATHS_KEPT:
                answers = self._answers = {}
            answers[asked] = self._answering(method, path, arrived)
        return answers[asked]

    def _level(self, app: Any, place: Place, above: tuple[int, ...]) -> Level:
        level = Level(str(getattr(app, "root_path", "") or ""))
        self.plain = self.plain and not level.root_path
        routes = _routes_of(app)
        if routes is None:
            return level
        if id(app) in above:
            self._again.setdefault(id(app), []).append(place)
            return level
        self.apps.append(app)
        self.whole = self.whole and routes_visibly(app)
        router: Any = getattr(app, "router", app)
        self._lists.append((routes, [*routes]))
        self._listed.attributes(router, "routes")
        inherited = [*getattr(router, "dependencies", ())]
        for included, dependencies in included_routers(routes):
            self._lists.append((included.routes, [*included.routes]))
            self._listed.attributes(included, "routes")
            inherited += [*dependencies, *included.dependencies]
            custom = own_methods(included, APIRouter, ("handle", "matches"))
            if custom is not None:
                place = replace(
                    place, front_off=place.front_off or custom, layers=(*place.layers, custom), commits=True
                )
                self.layered, self.whole = True, False
        found = {id(each.dependency) for each in inherited if isinstance(each.dependency, _DECLARED)}
        place = replace(place, inherited=place.inherited | found)
        for original, effective in effective_routes(routes):
            level.entries += self._entry(original, effective, place, (*above, id(app)))
            matching = effective if isinstance(effective, BaseRoute) else original
            if not matches_as_written(matching):
                self.plain = self.by_path = False
                # It may take a request away from those after it, by anything in it.
                reason = f"the route class {type(original).__qualname__} before it matches in a way of its own"
                place = replace(place, front_off=place.front_off or reason)
        return level

    def _entry(self, original: BaseRoute, effective: Any, place: Place, above: tuple[int, ...]) -> Iterator[Entry]:
        if isinstance(original, APIRoute):
            self._found.append(Way.to(effective, place, above))
            yield self._found[-1].leaf
        elif isinstance(effective, routing.Mount):
            yield Branch(effective, effective.path_regex, self._mounted(effective, place, above))
        elif isinstance(effective, routing.Host):
            self.by_path = False
            yield Branch(effective, None, self._mounted(effective, place, above))
        elif isinstance(effective, routing.Route):
            self.others.append(effective)
            yield Leaf(effective.path_regex, None if effective.methods is None else frozenset(effective.methods))
        elif isinstance(effective, fastapi_routing.APIWebSocketRoute):
            self.notices += without_cached(effective)
        elif not isinstance(effective, routing.WebSocketRoute):
            self.others.append(effective if isinstance(effective, BaseRoute) else original)
            self.by_path = False
            yield Foreign(effective)

    def _mounted(self, mount: routing.Mount | routing.Host, place: Place, above: tuple[int, ...]) -> Level:
        inside = middleware_stack_of(mount.app)
        if _routes_of(inside.app) is None:
            self.others.append(mount)
        prefix = mount.path_format.removesuffix("/{path}") if isinstance(mount, routing.Mount) else ""
        stock = routing.Mount if isinstance(mount, routing.Mount) else routing.Host
        custom = own_methods(mount, stock, ("__call__", "handle"))
        self.layered = self.layered or custom is not None or not inside.harmless
        chosen = own_methods(mount, stock, ("matches",))
        given: frozenset[str] = frozenset(mount.param_convertors if isinstance(mount, routing.Host) else ())
        skipped = place.front_off or custom or chosen
        watched, before = Watched(), put_over(mount, "handle")
        watched.attributes(mount, "app")
        watched.members(mount, "matches")
        # Our hook comes later, and is no change.
        watched.asked(lambda: put_over(mount, "handle") is not before)
        place = Place(
            prefix=place.prefix + prefix,
            parameters=place.parameters | (frozenset(mount.param_convertors) - {"path"}),
            front_off=skipped or inside.reason,
            inherited=place.inherited,
            origin=place.origin or inside.cors,
            commits=place.commits or custom is not None or not inside.harmless,
            hosts=place.hosts | given,
            under=(*place.under, *([mount.host_format] if isinstance(mount, routing.Host) else [])),
            layers=(*place.layers, *([custom] if custom else []), *inside.layers),
            writers=(*place.writers, *inside.writers),
            watched=place.watched.joined([watched, inside.watched]),
        )
        if skipped is None and is_plain_files(mount.app):
            return Level("", files=Files(mount.app, place.watched))
        return self._level(inside.app, place, above)


def _routes_of(app: Any) -> list[BaseRoute] | None:
    """The routes that an app chooses from; a route that is an app itself is the only one."""
    return [app] if isinstance(app, BaseRoute) else getattr(app, "routes", None)
