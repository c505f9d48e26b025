"""The levels of routes that a survey is made of, and what of them answers a request."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from fastapi import routing as fastapi_routing
from starlette import routing
from starlette.routing import BaseRoute, Match

from fastapi_cacheinval.routes.analysis import Analysis
from fastapi_cacheinval.routes.app_hook import beneath_app_hook
from fastapi_cacheinval.routes.cover_order import order_covers
from fastapi_cacheinval.routes.endpoint_calls import declared_call, put_over
from fastapi_cacheinval.routes.fastapi_private import EffectiveRoute, original_of
from fastapi_cacheinval.routes.files import is_plain_files
from fastapi_cacheinval.routes.place import Place, Watched

__all__ = [
    "Answering",
    "Branch",
    "Entry",
    "Files",
    "Foreign",
    "Known",
    "Leaf",
    "Level",
    "Way",
    "answering_in",
    "for_some_host",
    "matches_as_written",
    "root_paths_in",
    "route_path",
    "start_of",
    "watched_of",
]

_MATCHING = (
    fastapi_routing.APIRoute.matches,
    fastapi_routing.APIWebSocketRoute.matches,
    routing.Route.matches,
    routing.WebSocketRoute.matches,
    routing.Mount.matches,
    routing.Host.matches,
)
# Plain characters, and punctuation behind a backslash, none of them repeated or optional.
_LITERAL = re.compile(r"(?:(?:[A-Za-z0-9/_~-]|\\[^A-Za-z0-9])(?![*+?{]))*")


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """An analysed route, by one of its ways; holding it keeps its address from being given to another."""

    route: EffectiveRoute
    place: Place
    analysis: Analysis

    @property
    def changed(self) -> bool:
        """Whether the route, or what is on a way to it, is no longer what was analysed."""
        return self.place.watched.changed


@dataclass(slots=True, eq=False)
class Leaf:
    """Answers a path with the methods it has; without `known` it is a plain route, which is never cached."""

    pattern: re.Pattern[str]
    methods: frozenset[str] | None
    known: Known | None = None
    start: str = field(init=False)

    def __post_init__(self) -> None:
        self.start = start_of(self.pattern)

    def refuses(self, method: str) -> bool:
        """Whether its answer to a method is 405."""
        return self.methods is not None and method not in self.methods


def start_of(pattern: re.Pattern[str]) -> str:
    """Text that everything begins with that a pattern matches; empty where its text does not plainly say so."""
    text = pattern.pattern
    if pattern.flags & ~re.UNICODE or not text.startswith("^") or "|" in text:
        return ""
    literal = _LITERAL.match(text, 1)
    found = "" if literal is None else literal[0]
    return re.sub(r"\\(.)", r"\1", found)


@dataclass(frozen=True, slots=True, eq=False)
class Way:
    """One place of a FastAPI route in the tree; `above` are the applications around it."""

    route: EffectiveRoute
    place: Place
    leaf: Leaf
    above: tuple[int, ...]

    @classmethod
    def to(cls, route: EffectiveRoute, place: Place, above: tuple[int, ...]) -> Way:
        """The way to a route, whose covers are put in order before it is watched."""
        order_covers(route.dependant)
        place = replace(place, watched=place.watched.joined([watched_of(route)]))
        return cls(route, place, Leaf(route.path_regex, frozenset(route.methods) or None), above)


@dataclass(frozen=True, slots=True, eq=False)
class Branch:
    """A mount, or a host, which has no pattern of the path: once it matches, no later route is tried."""

    route: BaseRoute
    pattern: re.Pattern[str] | None
    level: Level


@dataclass(frozen=True, slots=True, eq=False)
class Foreign:
    """A route of a class that only knows itself whether it matches."""

    route: BaseRoute


@dataclass(frozen=True, slots=True, eq=False)
class Files:
    """Plain files that are mounted, past nothing that a hit may not skip; `watched` is what may change that."""

    app: object
    watched: Watched

    def are(self, app: object) -> bool:
        """Whether they are an app that a request has come to, and still what they were."""
        return self.app is app and not self.watched.changed and is_plain_files(app)


Answering = Leaf | Foreign | Files
Entry = Leaf | Branch | Foreign


@dataclass(slots=True, eq=False)
class Level:
    """The routes of one router, includes opened; `root_path` is what its application insists on.

    Without a router it has no entries, and `files` where those are mounted.
    """

    root_path: str
    entries: list[Entry] = field(default_factory=list[Entry])
    files: Files | None = None


def route_path(path: str, root_path: str) -> str:
    """The path as a router sees it: without the root path, where that is a whole part of it."""
    if root_path and path.startswith(root_path):
        rest = path[len(root_path) :]
        if not rest or rest.startswith("/"):
            return rest
    return path


def matches_as_written(route: BaseRoute) -> bool:
    """Whether a route matches in no way of its own, but as the framework wrote it."""
    return type(route).matches in _MATCHING and "matches" not in vars(route)


def _matches(route: BaseRoute, scope: dict[str, Any]) -> bool:
    match, _ = route.matches(scope)
    return match is Match.FULL


def answering_in(level: Level, root_path: str, scope: dict[str, Any]) -> Answering | None:
    """What of a level, or of those below it, answers a request, if only with 405; None where nothing does."""
    refusing: Leaf | None = None
    path = route_path(scope["path"], root_path) if root_path else scope["path"]
    method = scope["method"]
    for entry in level.entries:
        if isinstance(entry, Leaf):
            # Most of very many routes begin otherwise, which is cheap to see.
            if path.startswith(entry.start) and entry.pattern.match(path):
                if entry.methods is None or method in entry.methods:
                    return entry
                refusing = refusing or entry
        elif isinstance(entry, Branch) and entry.pattern is not None:
            if found := entry.pattern.match(path):
                taken = path[: -len("/" + found["path"])]
                return answering_in(entry.level, entry.level.root_path or root_path + taken, scope)
        elif _matches(entry.route, {**scope, "root_path": root_path}):
            if isinstance(entry, Foreign):
                return entry
            return answering_in(entry.level, entry.level.root_path or root_path, scope)
    return level.files or refusing


def for_some_host(level: Level, root_path: str, path: str) -> Iterator[Leaf]:
    """Every route that may answer GET of a path, whatever the host that a request names: a path is purged for all."""
    below = route_path(path, root_path) if root_path else path
    for entry in level.entries:
        if isinstance(entry, Leaf):
            if not entry.refuses("GET") and entry.pattern.match(below):
                yield entry
        elif isinstance(entry, Branch):
            found = None if entry.pattern is None else entry.pattern.match(below)
            if entry.pattern is None or found is not None:
                taken = "" if found is None else below[: -len("/" + found["path"])]
                yield from for_some_host(entry.level, entry.level.root_path or root_path + taken, path)


def root_paths_in(scope: Mapping[str, Any]) -> Iterator[str]:
    """What the root path may have been before mounts wrote theirs behind it, the likeliest first."""
    yield str(scope.get("app_root_path", scope.get("root_path", "")))
    root_path = str(scope.get("root_path", ""))
    for match in re.finditer("/|$", root_path):
        yield root_path[: match.start()]


def watched_of(route: EffectiveRoute) -> Watched:
    """What of a route itself decides how it answers."""
    watched = Watched()
    watched.attributes(route, "dependant", "dependency_overrides_provider")
    original = original_of(route)
    watched.members(original, "get_route_handler", "matches")
    # Our hooks come later, and are no change; nor is the note of its calls.
    root = route.dependant
    before, call, app = put_over(original, "handle"), declared_call(root), beneath_app_hook(getattr(route, "app", None))
    watched.asked(
        lambda: (
            put_over(original, "handle") is not before
            or declared_call(root) is not call
            or (getattr(route, "app", None) is not app and beneath_app_hook(getattr(route, "app", None)) is not app)
        )
    )
    nodes = [root]
    for node in nodes:
        if node is not root:
            watched.attributes(node, "call")
        watched.elements(node.dependencies)
        nodes += node.dependencies
    return watched
