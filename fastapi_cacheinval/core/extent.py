"""How much an unsafe request purges: by what is known of its handler, by the status that leaves, and of which paths."""

from __future__ import annotations

from enum import Enum, IntEnum

__all__ = ["Extent", "Handler", "PathReach", "extent_of", "path_reach", "paths_named"]

PathReach = bool | str
"""How far paths are purged: the path and its parent collection (True), `"target"`, which is the path alone, or not."""

# The target has done nothing, and asks for the same request elsewhere (RFC 9110 sections 15.4.8 and 15.4.9).
_ELSEWHERE = frozenset({307, 308})


class Handler(IntEnum):
    """What is known of the handler. Where a request came to several, the greatest counts."""

    UNREACHED = 0
    """A middleware or a router answered or failed, and no route was given the request."""
    STOPPED = 1
    """The request came to a route that does not have its method, or whose own dependencies answered it or failed."""
    REFUSED = 2
    """The handler itself chose a status of 400 or more."""
    GIVEN = 3
    """Something that may be a handler was given the request, and only the status tells what it did."""
    FAILED = 4
    """The handler raised an exception that chooses no status."""
    RAN = 5
    """The handler returned, or nobody knows what it did: it was cancelled, or it still runs."""


class Extent(Enum):
    """What is purged. What code says that it has committed is purged in each case."""

    ALL = "what the route declares, what was added, and the paths"
    TARGET = "the exact target path"
    FACTS = "only what has been committed"


def extent_of(status: int | None, handler: Handler, *, by_headers: bool) -> Extent:
    """The extent for the status that leaves (100 to 999), or None where the app raised or was cancelled.

    A handler that ran purges all, whatever a middleware makes of its answer; so does one that raised, unless the app
    answers that with a 4xx of its own. Otherwise a status of 400 or more changes nothing. Where no handler ran,
    RFC 9111 section 4.4 still has the target invalidated; `by_headers` keeps to that but for 307 and 308, also where
    the status alone tells. Routes with policies are stricter: a redirect that no handler made, and any answer of a
    route's dependencies, purges nothing, or anybody could keep a page cold.
    """
    if handler is Handler.RAN:
        return Extent.ALL
    if status is None:
        # A handler that refused is over, and what failed after it may have committed.
        return Extent.FACTS if handler <= Handler.STOPPED else Extent.ALL
    if status >= 400:
        return Extent.ALL if handler is Handler.FAILED and status >= 500 else Extent.FACTS
    if status in _ELSEWHERE and handler <= (Handler.GIVEN if by_headers else Handler.REFUSED):
        return Extent.FACTS
    if handler >= Handler.GIVEN:
        return Extent.ALL
    if by_headers or (handler is Handler.UNREACHED and status < 300):
        return Extent.TARGET
    return Extent.FACTS


def path_reach(setting: PathReach, *, by_headers: bool) -> PathReach:
    """How far paths are purged: as `path_purges` says, but RFC 9111 section 4.4 asks for the target by headers."""
    return setting or ("target" if by_headers else False)


def paths_named(path: str, reach: PathReach) -> list[str]:
    """The paths, or their templates, that a purge of one reaches; with its parent in both spellings of the slash."""
    if not reach:
        return []
    trimmed = path.rstrip("/")
    parent = trimmed.rpartition("/")[0]
    named = (path,) if reach == "target" else (trimmed, f"{trimmed}/", parent, f"{parent}/")
    return [each for each in dict.fromkeys(named) if each]
