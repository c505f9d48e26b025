"""What routes declare: `cached()`, `invalidates()` and `CacheTags`, all plain FastAPI dependencies."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, NoReturn, Protocol, Unpack, cast

from fastapi import Depends, Request, Response, params
from fastapi.requests import HTTPConnection

from fastapi_cacheinval.core.checks import Wait, flag, waits
from fastapi_cacheinval.core.partition_by import UnusableKey
from fastapi_cacheinval.core.policy import CachePolicy, PolicyFields
from fastapi_cacheinval.core.tags import TagTemplate
from fastapi_cacheinval.core.unchanging import Unchanging
from fastapi_cacheinval.errors import ConfigurationError, MiddlewareMissing

__all__ = [
    "SCOPE_KEY",
    "CacheTags",
    "Cached",
    "CachedInOrder",
    "Invalidates",
    "InvalidatesNothing",
    "Tags",
    "cached",
    "invalidates",
    "invalidates_nothing",
]

logger = logging.getLogger("fastapi_cacheinval.dependencies")

SCOPE_KEY = "fastapi_cacheinval"
_WRITTEN = (
    "a dependency that runs before the lookup has set fields of the response. Others would be given them: set them in "
    "the handler, or in a middleware."
)
PARTITION = "partition_"
GUARD = "guard_"


class Tags(Protocol):
    """Collects tags for the request at hand: for the stored response, or for the purge of an unsafe request."""

    def add(self, *tags: str) -> None:
        """Add tags; they may carry a client's data, and no text of theirs ever raises."""
        ...


class _RequestExchange(Protocol):
    """What the middleware leaves in the scope for these dependencies."""

    tags: Tags

    async def look_up(self, request: Request, cached: Cached, partition: tuple[Any, ...]) -> None: ...

    def declare(self, request: Request, invalidates: Invalidates) -> None: ...


class _Unlistened:
    """Takes tags where no middleware will read them."""

    def add(self, *tags: str) -> None:
        pass


def _exchange(connection: HTTPConnection) -> _RequestExchange | None:
    return cast("_RequestExchange | None", connection.scope.get(SCOPE_KEY))


def _key_of(key: Callable[[Any], object] | None, value: object) -> object:
    """What a partition's value puts into the cache key; a `key` that raises is no client's fault."""
    if key is None:
        return value
    try:
        found = key(value)
    except Exception as error:  # noqa: BLE001 - the author's function, which the route can do without
        return UnusableKey(error)
    if inspect.iscoroutine(found):
        # It is no part of a key, and nobody awaits it.
        found.close()
    return found


class Cached(Unchanging):
    """The dependency that `cached()` declares: its sub-dependencies are the covers, its call is the route lookup.

    It is inert on a WebSocket, which inherits what an app or a router declares. That is why it takes an
    `HTTPConnection`: FastAPI gives a `Request` to HTTP routes alone.
    """

    def __init__(self, policy: CachePolicy) -> None:
        self.policy = policy
        self._warned = False
        covers = [(PARTITION, cover) for cover in policy.partition]
        covers += [(GUARD, cover) for cover in policy.guards]
        keyword = inspect.Parameter.KEYWORD_ONLY
        self.__signature__ = inspect.Signature(
            [
                inspect.Parameter("connection", keyword, annotation=HTTPConnection),
                # Only with this word the audit lets a cover take the response.
                *([inspect.Parameter("response", keyword, annotation=Response)] * policy.request_is_shared),
                *(
                    inspect.Parameter(
                        f"{prefix}{index}",
                        keyword,
                        default=cover if hasattr(cover, "dependency") else Depends(cover),
                        annotation=Any,
                    )
                    for index, (prefix, cover) in enumerate(covers)
                ),
            ]
        )

    def __repr__(self) -> str:
        return f"cached({self.policy!r})"

    @property
    def declared(self) -> Cached:
        """What the route's author has written: this, or what this stands for."""
        return self

    async def __call__(self, connection: HTTPConnection, response: Response | None = None, **covers: Any) -> None:
        if not isinstance(connection, Request):
            return
        exchange = _exchange(connection)
        if exchange is None:
            if not self._warned:
                self._warned = True
                logger.warning(
                    "%s declares cached(), but the request did not pass a CacheMiddleware: nothing is cached. Add it: "
                    "app.add_middleware(CacheMiddleware, cache=cache).",
                    connection.url.path,
                )
            return
        partition = self.partition(covers) if self.policy.partition else ()
        if response is not None and (response.raw_headers or cast("int | None", response.status_code) is not None):
            partition = (*partition, UnusableKey(None, _WRITTEN))
        await exchange.look_up(connection, self, partition)

    def partition(self, covers: Mapping[str, Any]) -> tuple[Any, ...]:
        """What the values of the covers put into the cache key."""
        keys = self.policy.partition_keys
        return tuple([_key_of(key, covers[f"{PARTITION}{index}"]) for index, key in enumerate(keys)])


class CachedInOrder(Cached):
    """What stands for a `cached()` in a route that has its covers run in another order; overrides take both for one."""

    def __init__(self, declared: Cached, names: Sequence[str]) -> None:
        super().__init__(declared.policy)
        self._declared = declared
        parameters = self.__signature__.parameters
        others = [name for name in parameters if name not in names]
        self.__signature__ = inspect.Signature([parameters[name] for name in (*others, *names)])

    @property
    def declared(self) -> Cached:
        return self._declared

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Cached) and self.declared is other.declared

    def __hash__(self) -> int:
        return hash(self.declared)


class Invalidates:
    """The dependency that `invalidates()` declares: its call hands the templates to the request's purge.

    It is inert on a WebSocket.
    """

    def __init__(self, templates: Iterable[str], *, soft: bool, paths: bool = True, wait: Wait = None) -> None:
        self.templates = tuple(TagTemplate.parse(text) for text in templates)
        self.soft = soft
        self.paths = paths
        self.waits = waits(wait)

    def __repr__(self) -> str:
        given = [repr(template.text) for template in self.templates]
        given += ["paths=False"] if not self.paths else []
        given += ['wait="all"'] if self.waits else []
        return f"invalidates({', '.join(given)})"

    async def __call__(self, connection: HTTPConnection) -> None:
        if not isinstance(connection, Request):
            return
        exchange = _exchange(connection)
        if exchange is None:
            raise MiddlewareMissing(f"{connection.method} {connection.url.path}")
        exchange.declare(connection, self)


class InvalidatesNothing:
    """The dependency that `invalidates_nothing()` declares: it is read at start-up, and does nothing when called."""

    def __repr__(self) -> str:
        return "invalidates_nothing()"

    async def __call__(self) -> None:
        """Nothing to do at request time."""


class _Declared(params.Depends):
    """What `cached()` and the others give: a `Depends` that says what to write where it is put in a wrong place."""

    def _refuse(self, instead: str) -> NoReturn:
        declared = self.dependency
        name = "cached(...)" if isinstance(declared, Cached) else "invalidates(...)"
        raise ConfigurationError(
            instead.format("invalidates_nothing()" if isinstance(declared, InvalidatesNothing) else name)
        )

    def __call__(self, *_given: object, **_named: object) -> NoReturn:
        self._refuse("{0} is no decorator. Write it into the route: @app.get(..., dependencies=[{0}]).")

    def __iter__(self) -> NoReturn:
        self._refuse("dependencies is a list: write dependencies=[{0}], not dependencies={0}.")

    @property
    def __signature__(self) -> inspect.Signature:
        # Asked by `Depends(...)` of what it is given.
        self._refuse("{0} is a dependency already: write dependencies=[{0}], not Depends({0}).")


def _refuse_a_function(given: object, name: str) -> None:
    """Refuse the use as a decorator without parentheses."""
    if inspect.isroutine(given) or (inspect.isclass(given) and given is not CachePolicy):
        raise ConfigurationError(
            f"{name} is no decorator. Write it into the route: @app.get(..., dependencies=[{name}(...)])."
        )


def cached(policy: CachePolicy | None = None, /, **fields: Unpack[PolicyFields]) -> Any:
    """Declare a cache policy for what is below: an app, a router, an include or a route.

    The fields replace the policy's, but `tags` unite; the innermost `cached()` wins, and
    `cached(ttl=0)` switches an inherited one off. Raises `ConfigurationError` for a bad field.
    """
    _refuse_a_function(policy, "cached")
    return _Declared(Cached(CachePolicy.build(policy, fields)))


def invalidates(*tag_templates: str, soft: bool = False, paths: bool = True, wait: Wait = None) -> Any:
    """Declare what a mutating route purges when its handler ran and ended without an error; all that apply unite.

    `soft=True` makes stored responses stale instead of unusable. `paths=False` purges no path for the route: neither
    the target and its parent collection nor `Location`; one of those that apply is enough. `wait="all"` sends the
    response when every replica has applied the purge, or cannot serve what it names any more; one is enough here too.
    Raises `ConfigurationError` for a template that is not a tag, for no template at all without `paths=False`, and for
    a switch that is not a bool.
    """
    flag(soft, "soft")
    flag(paths, "paths")
    for each in tag_templates:
        _refuse_a_function(each, "invalidates")
    if not tag_templates and paths:
        raise ConfigurationError("invalidates() needs at least one tag: the target path is purged without it.")
    return _Declared(Invalidates(tag_templates, soft=soft, paths=paths, wait=wait))


def invalidates_nothing() -> Any:
    """Declare that the unsafe methods of what is below only read: nothing is purged by tag or path.

    A search by POST is one. The innermost of `invalidates()` and `invalidates_nothing()` wins: a route's own
    `invalidates()` purges under a router that declares `invalidates_nothing()`, and the other way round. Both on one
    route are a `ConfigurationError` at start-up. What code says that it has committed (`purge_with_request`, the
    integrations) is purged all the same.
    """
    return _Declared(InvalidatesNothing())


async def collected_tags(connection: HTTPConnection) -> Tags:
    """The tags of the request at hand; on a WebSocket nobody reads them."""
    exchange = _exchange(connection)
    return _Unlistened() if exchange is None else exchange.tags


CacheTags = Annotated[Tags, Depends(collected_tags)]
"""The request's tags: on a safe method they tag the stored response, on an unsafe one they are purged."""
