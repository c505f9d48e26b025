"""The paths that a URL may stand for, below the root paths under which an app is served."""

from __future__ import annotations

from urllib.parse import quote

from fastapi_cacheinval.core.keys import below
from fastapi_cacheinval.core.tags import has_host, url_paths

__all__ = ["RootPaths"]

# A proxy's header may name them, so that a client could.
_MOST = 64
# Of the suffixes that are tried where no root path is known.
_MOST_SUFFIXES = 8


class RootPaths:
    """The root paths that the apps of one cache are known to be served under.

    A stored response is named by its path below the root path. A URL made by `request.url_for` has the root path in
    it, and a path written by hand has it or not: both are purged.
    """

    __slots__ = ("_asked", "_roots")

    def __init__(self) -> None:
        # Each with whether requests came by it.
        self._roots: dict[str, bool] = {}
        # Whether a request has come, so that the server's root path is known.
        self._asked = False

    def __repr__(self) -> str:
        return f"<RootPaths {list(self._roots)!r}>"

    def add(self, root: str, *, asked: bool = True, inside: bool = False) -> None:
        """Note a root path, which may be empty; `asked` says that a request came by it, so that it is the whole one.

        `inside` says that a layer has written it: URLs have it, and no request comes by it.
        """
        self._asked = self._asked or asked or bool(root)
        if root in self._roots or len(self._roots) < _MOST:
            # The path of a URL is made without the slash at its end, and with one in front.
            for each in (root, root.rstrip("/"), "/" + root.strip("/") if root else ""):
                self._roots[each] = self._roots.get(each, False) or not inside

    def above(self, path: str) -> str:
        """The longest root path of requests that a decoded path is at or below; empty where none is known."""
        came = (root for root, by_it in self._roots.items() if by_it and root)
        return max((root for root in came if below(root, path) != path), key=len, default="")

    def paths_of(self, url: str) -> tuple[str, ...]:
        """The paths that a URL or a path may stand for, as it is written and below each root path. Never raises.

        In a process that has not seen a request yet, such as a worker, the root path of a whole URL is not known.
        There each end of its path, from a slash on, counts as what may be below it: too much is purged, never nothing.
        """
        written = url_paths(url)
        found = dict.fromkeys(written)
        for root in self._roots:
            for path in written:
                for spelled in (root, quote(root)):
                    found[below(spelled, path)] = None
        if not self._asked and has_host(url):
            for path in written:
                found.update(dict.fromkeys(_ends(path)))
        return tuple(found)


def _ends(path: str) -> list[str]:
    ends: list[str] = []
    rest = path
    while len(ends) < _MOST_SUFFIXES:
        at = rest.find("/", 1)
        if at < 0:
            return [*ends, "/"]
        rest = rest[at:]
        ends.append(rest)
    return ends
