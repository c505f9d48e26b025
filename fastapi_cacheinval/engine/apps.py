"""The applications that one cache serves: what the names of routes alone do not tell apart is kept apart by number.

Numbers are this process's own, so nothing that is kept under one leaves the process.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Iterable

from fastapi_cacheinval.core.route_sets import RouteSet
from fastapi_cacheinval.ports.served import ServedApp

__all__ = ["Apps"]

logger = logging.getLogger("fastapi_cacheinval.cache")

# More places than these come from clients. All further ones count as one place, which has one owner.
_MOST_PLACES = 4096
_MOST_HEARD = 1000

Place = tuple[bytes, ...]

_OTHERS: Place = ()


class Apps:
    """Numbers the applications of one cache, and notes which place each of them answers. Threads may share it."""

    def __init__(self) -> None:
        self._living: dict[int, Callable[[], object]] = {}
        self._next = 0
        self._owners: dict[Place, int] = {}
        self._contested: set[Place] = set()
        self._told = False
        self._routes: set[str] = set()
        self._heard: set[bytes] = set()
        self._lock = threading.Lock()
        self._served: list[weakref.ref[ServedApp]] = []

    def number(self, app: object) -> int:
        """The number of an application: 0 for the first, always the same for the same object, never another's."""
        with self._lock:
            for number, found in list(self._living.items()):
                known = found()
                if known is app:
                    return number
                if known is None:
                    del self._living[number]
            number, self._next = self._next, self._next + 1
            self._living[number] = _reference(app)
            return number

    @property
    def any(self) -> bool:
        """Whether an app has ever been given it."""
        return self._next > 0

    def claim(self, places: Iterable[Place], number: int) -> None:
        """Say which places an application answers before it is asked, so that the first lookup knows of all of them."""
        for place in places:
            self._owned(place, number)

    def alone(self, place: Place, number: int) -> bool:
        """Whether the application is the only one of this cache that ever answered a place; it does from now on.

        A place stays its first application's when that one is gone: what it answered may still be stored. A place that
        two have answered stays contested as long as the cache lives.
        """
        if self._owned(place, number):
            return True
        with self._lock:
            first, self._told = not self._told, True
        if first:
            logger.warning(
                "One HTTPCache serves several apps that answer the same routes. What they answer is kept apart in this "
                "process, and replicas cannot share it: give each app an HTTPCache with a namespace of its own."
            )
        return False

    def _owned(self, place: Place, number: int) -> bool:
        if self._owners.get(place) == number:
            return place not in self._contested
        with self._lock:
            if place not in self._owners and len(self._owners) >= _MOST_PLACES:
                place = _OTHERS
            if self._owners.setdefault(place, number) != number:
                self._contested.add(place)
            return place not in self._contested

    # -- asked without a client -----------------------------------------------------------------

    def open(self, app: ServedApp) -> None:
        """An app has been looked at: it can be asked by the names of its routes from now on, as long as it lives."""
        with self._lock:
            self._served = [*(each for each in self._served if each() is not None), weakref.ref(app)]

    @property
    def served(self) -> tuple[ServedApp, ...]:
        """The apps that can be asked, in the order in which they started."""
        return tuple(app for each in self._served if (app := each()) is not None)

    @property
    def titles(self) -> tuple[str, ...]:
        """What they call themselves."""
        return tuple(dict.fromkeys(app.title for app in self.served))

    # -- the routes of all of them ---------------------------------------------------------------

    def serve(self, routes: Iterable[str]) -> None:
        """Add the routes of an app, each by a text that names it in every process."""
        with self._lock:
            self._routes.update(routes)

    @property
    def route_set(self) -> RouteSet:
        """All routes that have been added."""
        with self._lock:
            return RouteSet.of(self._routes)

    def first_heard(self, name: bytes) -> bool:
        """Whether a route set of others is heard of for the first time; False for all once very many have been."""
        with self._lock:
            if name in self._heard or len(self._heard) >= _MOST_HEARD:
                return False
            self._heard.add(name)
            return True


def _reference(app: object) -> Callable[[], object]:
    try:
        return weakref.ref(app)
    except TypeError:
        # It takes no references that let it go: it is kept.
        return lambda: app
