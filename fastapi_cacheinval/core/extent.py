"""How much an unsafe request purges, by how it ended and whether its handler ran."""

from __future__ import annotations

from enum import Enum

__all__ = ["Extent", "Handler", "extent_of"]

# The target has done nothing, and asks for the same request elsewhere (RFC 9110 sections 15.4.8 and 15.4.9).
_ELSEWHERE = frozenset({307, 308})


class Handler(Enum):
    """What is known of the handler when the response begins."""

    RAN = "it ran, or something that may be one was given the request"
    STOPPED = "the request came to a route, and the route's own dependencies answered it"
    UNREACHED = "a middleware or a router answered, and no route was given the request"


class Extent(Enum):
    """What is purged. What code says that it has committed is purged in each case."""

    ALL = "what the route declares, what was added, and the paths"
    TARGET = "the exact target path"
    FACTS = "only what has been committed"


def extent_of(status: int, handler: Handler, *, by_headers: bool) -> Extent:
    """The extent for a response's status (100 to 999).

    A status of 400 or more changes nothing. Where no handler ran, RFC 9111 section 4.4 still has the target
    invalidated; `by_headers` keeps to that but for 307 and 308. Routes with policies are stricter: a redirect that
    no handler made, and any answer of a route's dependencies, purges nothing, or anybody could keep a page cold.
    """
    if status >= 400:
        return Extent.FACTS
    if handler is Handler.RAN:
        return Extent.ALL
    if status in _ELSEWHERE:
        return Extent.FACTS
    if by_headers or (handler is Handler.UNREACHED and status < 300):
        return Extent.TARGET
    return Extent.FACTS
