"""What one middleware instance knows of the app it stands in: its cache, its routes, its options."""

from __future__ import annotations

import logging
from typing import Any

from starlette.types import ASGIApp, Scope

from fastapi_cacheinval.engine.internals import Internals
from fastapi_cacheinval.engine.log_once import LogOnce
from fastapi_cacheinval.errors import CacheinvalError, CacheNotRunning
from fastapi_cacheinval.framework.uncached import Uncached
from fastapi_cacheinval.ports.downstream import Downstream
from fastapi_cacheinval.routes.middleware_stack import middleware_stack_of
from fastapi_cacheinval.routes.plan import RoutePlan
from fastapi_cacheinval.routes.table import RouteTable

__all__ = ["AppContext"]

logger = logging.getLogger("fastapi_cacheinval.middleware")


class AppContext:
    """Immutable after `prepare`, but for what it has warned about."""

    def __init__(
        self,
        app: ASGIApp,
        cache: Internals,
        *,
        face: object = None,
        front: bool | None,
        emit_surrogate_key: bool,
        emit_cache_status: bool,
        downstream: Downstream | None,
    ) -> None:
        self.app = app
        self.cache = cache
        # What users know it by.
        self.face = face
        self.engine = cache.engine
        self.counters = cache.counters
        self.bodies = cache.bodies
        self.front = front
        # With a CDN in front tags are for it alone, named as it wants them.
        self.emit_surrogate_key = emit_surrogate_key and downstream is None
        self.downstream = downstream
        self.emit_cache_status = emit_cache_status
        self.providers: list[Any] = []
        self.root_path = ""
        # Whether anybody records telemetry; asked once, when the app has started.
        self.observed = False
        # Routes whose failures are known.
        self.log_once = LogOnce()
        self.error: CacheinvalError | None = None
        self._table: RouteTable | None = None
        self.uncached: Uncached | None = None
        self._warned: set[str] = set()
        self._changed: set[str] = set()
        self._untold: set[tuple[str | None, str]] = set()

    @property
    def table(self) -> RouteTable:
        """The routes; only after `prepare`."""
        if self._table is None:
            raise CacheNotRunning("The middleware has not looked at its app yet.")
        return self._table

    @property
    def ready(self) -> bool:
        """Whether the app has been looked at and is sound."""
        return self._table is not None

    @property
    def prepared(self) -> bool:
        """Whether the app has been looked at, with or without an error."""
        return self._table is not None or self.error is not None

    def prepare(self, scope: Scope) -> None:
        """Look at the app, once, and audit its routes; what is wrong is kept in `error`."""
        try:
            inside = middleware_stack_of(self.app)
            app = inside.app if inside.app is not None else scope.get("app")
            table = RouteTable(app, inside, front=self.front)
            table.audit()
        except CacheinvalError as error:
            self.error = error
            return
        self.root_path = str(getattr(app, "root_path", "") or "")
        self.providers = table.providers
        self._table = table
        self.uncached = Uncached(table)
        for line in table.describe():
            logger.info("%s", line)
        for line in table.warnings():
            logger.warning("%s", line)

    def warn_once(self, plan: RoutePlan) -> None:
        """Say once that a route is not cached because its overridden dependencies read the caller."""
        if plan.path not in self._warned:
            self._warned.add(plan.path)
            logger.warning(
                "%s is not cached while its dependencies are overridden: %s", plan.path, "; ".join(plan.uncovered)
            )

    def note_changed(self, plan: RoutePlan) -> None:
        """Say once that what stands before a route changes what the cache hands out there."""
        if plan.path not in self._changed:
            self._changed.add(plan.path)
            logger.info(
                "%s changes responses of the cached route %s: each caller gets their own, and what is stored is what "
                "the route itself said. What writes the same for all is better added after CacheMiddleware.",
                ", ".join(plan.layers),
                plan.path,
            )

    def note_untold(self, route: str | None, reason: str) -> None:
        """Count an answer that the CDN may not keep because it cannot be told all it needs, and say so once a route."""
        self.counters.downstream[reason] += 1
        if (route, reason) not in self._untold:
            self._untold.add((route, reason))
            logger.warning("the CDN is told to keep no response of %s that it cannot be told all of: %s", route, reason)

    def root_of(self, scope: Scope) -> str:
        """The root path that is no part of a resource's name: the app's own where it has one, else the server's.

        A mount adds its prefix to `root_path`; what is mounted elsewhere at the same path below is another resource.
        """
        return self.root_path or str(scope.get("app_root_path", scope.get("root_path", "")))

    @staticmethod
    def below(root: str, path: str) -> str:
        """A path without the root path, as routes see it: a slash at the end of the root path is a part of it."""
        if root and (path == root or path.startswith(root + "/")):
            return path[len(root) :] or "/"
        return path
