"""What one middleware instance knows of the app it stands in: its cache, its routes, its options."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from starlette.types import ASGIApp, Scope

from fastapi_cacheinval.core.keys import KeyParts, as_bytes, below, encode, raw_target
from fastapi_cacheinval.core.stored import StoredResponse
from fastapi_cacheinval.engine.internals import Internals
from fastapi_cacheinval.engine.log_once import LogOnce
from fastapi_cacheinval.errors import CacheinvalError, CacheNotRunning
from fastapi_cacheinval.framework.notices import Notices, say_at_start, unshared_partitions
from fastapi_cacheinval.framework.uncached import Uncached
from fastapi_cacheinval.ports.downstream import Downstream
from fastapi_cacheinval.ports.store import Target
from fastapi_cacheinval.routes.middleware_stack import middleware_stack_of
from fastapi_cacheinval.routes.shortcuts import Shortcuts
from fastapi_cacheinval.routes.table import RouteTable

__all__ = ["AppContext", "Mode"]

_MOST_ROOTS = 64

logger = logging.getLogger("fastapi_cacheinval.middleware")


class Mode(Protocol):
    """How a request is answered that every guard has let through.

    `by_headers` is whether by what headers say, and `chosen` what that leaves open, empty where nothing was chosen.
    """

    by_headers: bool
    chosen: str

    def read(self, incoming: Any) -> Awaitable[None]:
        """Take a GET or HEAD."""
        ...

    def read_by_policy(self, incoming: Any) -> Awaitable[None]:
        """Take a safe request to which headers have nothing to say."""
        ...

    def mutation(self, incoming: Any, before: Any = None) -> Any:
        """Make what becomes of an unsafe request; `before` is what a layer has made one of."""
        ...

    def keys_of(self, asks: Any) -> tuple[bytes, ...]:
        """The keys under which an answer by headers may be stored; none by policy."""
        ...

    def usable(self, asks: Any, stored: StoredResponse | None) -> StoredResponse | None:
        """The stored response, if it may still stand in for what answers now; None if not."""
        ...


def _no_shadow(scope: Scope, headers: list[tuple[bytes, bytes]], stored: StoredResponse) -> None:
    """Nobody compares."""


class AppContext:
    """What one middleware knows of its app and its cache, for all requests.

    Fixed after `prepare` until `replace`, except `spelled`, the known root paths, `observed`, `shadow` and what was
    warned about.
    """

    def __init__(
        self,
        app: ASGIApp,
        cache: Internals,
        *,
        face: object = None,
        mode: Mode,
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
        self.mode = mode
        self.front = front
        # With a CDN in front tags are for it alone, named as it wants them.
        self.emit_surrogate_key = emit_surrogate_key and downstream is None
        self.downstream = downstream
        self.emit_cache_status = emit_cache_status
        # Which middleware of this cache it is: its front lookup hands out only what came through its own layers.
        self.own_number = cache.engine.apps.number(self)
        # Which of the apps of this cache it is. Two middlewares around one app share what its routes say.
        self.number = self._number_of(app)
        # Whether some target of the front lookup holds the path as it was sent.
        self.spelled = False
        self.providers: list[Any] = []
        # By headers the answer that has passed all layers is stored: what has a part in it, and who it is that answers.
        self._writers: tuple[bytes, ...] = ()
        self._answers_as = self.number
        # What may insist on a root path of its own.
        self._rooted: Any = None
        # Those that requests have come by.
        self._roots: set[tuple[str, bool]] = set()
        # Whether anybody records telemetry; asked once, when the app has started.
        self.observed = False
        # Routes whose failures are known.
        self.log_once = LogOnce()
        self.notices = Notices(self.counters, self.log_once)
        # Makes a hit again, to compare; given by who knows how.
        self.shadow: Callable[[Scope, list[tuple[bytes, bytes]], StoredResponse], None] = _no_shadow
        self.error: CacheinvalError | None = None
        self._table: RouteTable | None = None
        # What is known of the requests for a path.
        self.shortcuts: Shortcuts | None = None
        self.uncached: Uncached | None = None

    @property
    def table(self) -> RouteTable:
        """The routes; only after `prepare`."""
        if self._table is None:
            raise CacheNotRunning("The middleware has not looked at its app yet: start the app's lifespan first.")
        return self._table

    @property
    def ready(self) -> bool:
        """Whether the app has been looked at and is sound."""
        return self.uncached is not None

    @property
    def prepared(self) -> bool:
        """Whether the app has been looked at, with or without an error."""
        return self.ready or self.error is not None

    def replace(self, app: ASGIApp) -> None:
        """Have requests answered by another app, or by the same one behind other layers, once that is looked at.

        Requests under way keep the routes of the app that they are in.
        """
        self.app = app
        self.number = self._number_of(app)
        self.uncached = self.error = None
        # What the front lookup knows was true of the app before.
        self.engine.store.clear()

    def _number_of(self, app: ASGIApp) -> int:
        behind = middleware_stack_of(app).app
        return self.engine.apps.number(app if behind is None else behind)

    def prepare(self, scope: Scope) -> None:
        """Look at the app, once, and audit its routes; what is wrong is kept in `error`."""
        try:
            inside = middleware_stack_of(self.app)
            app = inside.app if inside.app is not None else scope.get("app")
            table = RouteTable(app, inside, front=self.front, changed=self.engine.store.clear)
            table.audit()
        except CacheinvalError as error:
            self.error = error
            return
        self._rooted = app
        chosen = self.mode.chosen
        self._writers = (*inside.writers, *([as_bytes(chosen)] if chosen else []))
        self._answers_as = self.number if inside.harmless else self.own_number
        self.engine.apps.serve(table.names())
        self._claim(table, scope)
        self.cache.root_paths.add(str(getattr(app, "root_path", "") or ""), asked=False)
        self.providers = table.providers
        self._table = table
        self.shortcuts = Shortcuts(self.app, table)
        self.uncached = Uncached(table, self.cache, self.face)
        say_at_start(table.summary(by_headers=self.mode.by_headers))
        for line in table.describe():
            logger.debug("%s", line)
        for line in table.notes():
            logger.info("%s", line)
        unshared = None if self.cache.shares_partitions else unshared_partitions(table.plans)
        say_at_start((*table.warnings(by_headers=self.mode.by_headers), *filter(None, (unshared,))), logging.WARNING)

    def _claim(self, table: RouteTable, scope: Scope) -> None:
        """Have the other apps of the cache know what this one answers, also where it is never asked."""
        places = [plan.identity for plan in table.plans if plan.policy is not None and plan.known_everywhere]
        if self.mode.by_headers:
            # A lifespan's scope may lack the root path that a server gives: the first request claims that one.
            self.engine.apps.claim([self.headers_place(scope)], self._answers_as)
        self.engine.apps.claim(places, self.number)

    def root_of(self, scope: Scope) -> str:
        """The root path below which routes stand: the app's own where it has one, else the server's.

        A mount adds its prefix to `root_path`; what is mounted elsewhere at the same path below is another resource.
        """
        own = getattr(self._rooted, "root_path", "")
        return str(own or scope.get("app_root_path", scope.get("root_path", "")))

    def inner_paths(self, arrived: Scope, at_route: Scope) -> tuple[str, ...]:
        """The path as mounted apps have it in their routes and URLs, where one is mounted; nothing where none is.

        That is this app, which a request comes to as `arrived`, and the one whose route it is for. No process can tell
        from an app alone where it is mounted: so what is stored has each of these paths.
        """
        path = str(at_route["path"])
        roots = (str(arrived.get("root_path", "")), str(at_route.get("root_path", "")))
        whole = below(self.root_of(arrived), path)
        return tuple(dict.fromkeys(inner for root in roots if (inner := below(root, path)) != whole))

    # -- keys -----------------------------------------------------------------------------------

    def headers_place(self, scope: Scope) -> tuple[bytes, ...]:
        """The place of an app that answers by headers: the root path that a request comes with, and the layers."""
        return (b"headers", as_bytes(str(scope.get("root_path", ""))), *self._writers)

    def key_parts(self, mode: str, origin: tuple[str, bytes], root_path: str, path: str, **own: Any) -> KeyParts:
        """The parts that every key of this app has, and the mode's own. `origin` is scheme and host."""
        settings = self.engine.settings
        if not self.emit_surrogate_key:
            mode = f"{mode} untagged"
        return KeyParts(mode, settings.namespace, settings.version, *origin, root_path, path, **own)

    def local_part(self, place: tuple[bytes, ...], *own: int, number: int | None = None) -> bytes:
        """What makes a key of a route this process's own: empty where names alone tell its place from every other.

        `own` are numbers of this process's that the place has; all zero where it needs none. `number` is the app's
        own, if none is given.
        """
        number = self.number if number is None else number
        if not any(own) and self.engine.apps.alone(place, number):
            return b""
        return encode(b"%d" % each for each in (number, *own))

    def headers_local_part(self, place: tuple[bytes, ...]) -> bytes:
        """The same for what is answered by headers, which layers that nobody knows have had in their hands."""
        return self.local_part(place, number=self._answers_as)

    def front_target(self, target: Target, spelling: Target = ()) -> Target:
        """A raw target as this app's front lookup asks for it; `spelling` has the path as sent, where that counts."""
        self.spelled = self.spelled or bool(spelling)
        return (*target, *spelling, self.own_number) if self.own_number else (*target, *spelling)

    def at(self) -> Callable[[Target], Any]:
        """What the front lookup asks: the store itself, but for middlewares that share their cache with another."""
        at = self.engine.store.at
        if not self.own_number:
            return at
        number = self.own_number
        return lambda target: at((*target, number))

    def at_as_sent(self, scope: Scope, host: bytes | None) -> Any:
        """What the front lookup finds by the path as it was sent, for routes that tell spellings of it apart."""
        return self.at()((*raw_target(scope, host), scope.get("raw_path"), scope.get("http_version")))

    def note_root(self, scope: Scope, *, inside: bool = False) -> None:
        """Have the cache know of a request's root path, for URLs by hand; `inside`, where it has come to a route."""
        root = str(scope.get("app_root_path", scope.get("root_path", "")))
        if (root, inside) not in self._roots:
            if len(self._roots) < _MOST_ROOTS:
                self._roots.add((root, inside))
            self.cache.root_paths.add(root, inside=inside)

    def below_root(self, scope: Scope, path: str) -> str:
        """A path without the root path of a request, as routes see it."""
        root = self.root_of(scope)
        return below(root, path) if root else path
