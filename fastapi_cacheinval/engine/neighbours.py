"""The caches of this process: a purge that no app hears is told from one that is heard.

Two caches in one process are common and right where each serves an app of its own. They are a mistake where one serves
the app and the other is purged.
"""

from __future__ import annotations

import logging
import re
import weakref
from collections.abc import Sequence

from fastapi_cacheinval.engine.apps import Apps
from fastapi_cacheinval.engine.runtime import Runtimes

__all__ = ["Neighbour"]

logger = logging.getLogger("fastapi_cacheinval.cache")

_PATHS = ("/", "http://", "https://")
_TEMPLATE = re.compile(r"\{[^\W\d]\w*\}")


# All of them, as long as they live.
_all: weakref.WeakSet[Neighbour] = weakref.WeakSet()


class Neighbour:
    """One cache as the others of its process see it: `alone` where it keeps everything in this process."""

    __slots__ = ("__weakref__", "_alone", "_apps", "_hinted", "_runtimes")

    def __init__(self, apps: Apps, runtimes: Runtimes, *, alone: bool) -> None:
        self._apps = apps
        self._runtimes = runtimes
        self._alone = alone
        self._hinted: set[str] = set()
        _all.add(self)

    @property
    def has_an_app(self) -> bool:
        """Whether an app has ever been given it."""
        return self._apps.any

    @property
    def serves(self) -> bool:
        """Whether an app is served by it on a loop that runs."""
        return self.has_an_app and any(loop.is_running() for loop in list(self._runtimes))

    @property
    def _others(self) -> list[Neighbour]:
        return [other for other in list(_all) if other is not self]

    def made_for_an_app(self) -> None:
        """Say that an app got a cache of its own while another one waits for an app."""
        if any(not other.has_an_app for other in self._others):
            self._hint(
                "own",
                "CacheMiddleware was given no cache and made its own, while another HTTPCache of this process serves "
                "no app: purges of that one reach nobody. Write app.add_middleware(CacheMiddleware, cache=cache).",
            )

    def purges(self, tags: Sequence[str]) -> None:
        """Say once what a purge by hand cannot do: tags that no response carries, and a cache that no app has."""
        together = "".join(tags)
        for tag in tags if "*" in together or "{" in together or "/" in together else ():
            if tag.startswith(_PATHS):
                self._hint(
                    "path", "%r is one tag, and no path. If the path is meant, call cache.invalidate_url(%r).", tag, tag
                )
            elif "*" in tag and tag.endswith("*"):
                common = tag.rstrip("*").rstrip(":/.-_")
                self._hint(
                    "star",
                    "%r is one tag, and no pattern. Give the responses a tag in common, as tags=[%r], and purge that."
                    if common
                    else "%r is one tag, and no pattern. To purge everything, call %s.",
                    tag,
                    common or "cache.clear()",
                )
            elif "{" in tag and (found := _TEMPLATE.search(tag)):
                written = f"{tag[: found.start()]}{found[0]}"
                self._hint(
                    "template",
                    "%r is one tag, and no template: only cached() and invalidates() fill in names. Write f%r.",
                    tag,
                    written,
                )
        if self._alone and not self.has_an_app and any(other.serves for other in self._others):
            self._hint(
                "unheard",
                "This HTTPCache serves no app and keeps everything in itself, so its purges reach nobody. Purge "
                "through the one that CacheMiddleware was given, or make both by HTTPCache.from_url() with one URL.",
            )

    def _hint(self, kind: str, line: str, *values: object) -> None:
        if kind not in self._hinted:
            self._hinted.add(kind)
            logger.warning(line, *values)
