"""What a cache does with the routes of its apps, by name or URL: a part of `HTTPCache`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from functools import reduce
from typing import Any

from fastapi_cacheinval.core.audit import Audit
from fastapi_cacheinval.core.checks import Wait, flag
from fastapi_cacheinval.core.events import Receipt
from fastapi_cacheinval.core.explanation import Explanation
from fastapi_cacheinval.core.tag_limits import for_one_purge
from fastapi_cacheinval.core.warming import Page, WarmReport, WarmResult, any_fields, page_at, request_fields
from fastapi_cacheinval.engine.internals import Internals
from fastapi_cacheinval.errors import CacheNotRunning, ConfigurationError, UnknownRoute
from fastapi_cacheinval.ports.served import Parameters, ServedApp

__all__ = ["OfRoutes", "WarmTarget"]

WarmTarget = str | tuple[str, Mapping[str, object]]
"""A URL, a path, the name of a route, or the name with its parameters."""

_MOST_AT_ONCE = 1000


class OfRoutes:
    """The methods that need to know an app; its middleware must have started in this process."""

    _core: Internals

    async def invalidate_route(
        self,
        name: str,
        parameters: Parameters | None = None,
        /,
        *,
        soft: bool = False,
        wait: Wait = None,
        **more: object,
    ) -> Receipt:
        """Purge what is stored of a route for these parameters, by the name that `url_path_for` knows it by.

        The tags that the route's own templates give for the parameters are purged, and the path with all its queries,
        variants and hosts. Where several routes have the name, all that take the parameters are meant. `parameters`
        is for names that this call needs itself, such as `soft`. Values may carry a client's data and never raise.
        Raises `UnknownRoute` for a name that no GET route has, or a parameter that is missing or that it does not
        take, and `CacheNotRunning` where no app of this cache has started in this process.
        """
        flag(soft, "soft")
        given = {**(parameters or {}), **more}
        tags = dict.fromkeys(tag for app in self._of_name(name, given) for tag in app.tags_of(name, given))
        return await self._core.purger.purge(for_one_purge(tuple(tags)), soft=soft, wait=wait)

    async def warm(
        self,
        targets: Iterable[WarmTarget],
        *,
        base_url: str | None = None,
        headers: Mapping[str, str] | None = None,
        concurrency: int = 8,
    ) -> WarmReport:
        """Have the app answer pages as nobody, so that they are stored before a client asks; what is fresh is left.

        A target is a URL, a path, the name of a route without parameters, or `(name, parameters)`. `base_url` is
        scheme, host and root path as clients send them, for targets that are no whole URL. `headers` are request
        fields that select a variant, such as `Accept-Language`; credentials are refused. At most `concurrency`, from
        1 to 1,000, run at once, each for at most `refresh_timeout`. Middleware outside `CacheMiddleware` is not passed.
        An error of the app is in the report and does not end the call. Raises before the first request, as
        `invalidate_route` does and `ConfigurationError` for a target that is none.
        """
        if isinstance(targets, str):
            raise ConfigurationError(f"warm takes a list of targets, not one str: write [{targets!r}].")
        if isinstance(concurrency, bool) or not isinstance(concurrency, int) or not 1 <= concurrency <= _MOST_AT_ONCE:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError(f"concurrency is a number from 1 to {_MOST_AT_ONCE}, not {concurrency!r}.")
        fields = request_fields(headers)
        pages = list(dict.fromkeys(self._page(target, base_url) for target in targets))
        results: dict[Page, WarmResult] = {}
        left = iter(pages)

        async def work() -> None:
            # One iterator for all: each takes the next page when it is done with one.
            for page in left:
                results[page] = await self._app_for(page).fetch(page, fields, forced=False)

        async with asyncio.TaskGroup() as group:
            for _ in range(min(concurrency, len(pages))):
                group.create_task(work())
        return WarmReport(tuple(results[page] for page in pages))

    async def refresh_url(
        self, url: str, *, base_url: str | None = None, headers: Mapping[str, str] | None = None
    ) -> WarmResult:
        """Have the app answer one page anew, as nobody, and store that in place of what is stored.

        Until then the old response is served on; `invalidate_url` is for what is known to be wrong. The arguments are
        those of `warm`. A response that could not be had, or may not be stored, is in the result.
        """
        page = self._page(url, base_url)
        return await self._app_for(page).fetch(page, request_fields(headers), forced=True)

    def audit(self) -> Audit:
        """What the routes of its apps say of caching: who shares each page and why, what purges it, and the holes.

        Values alone, and no I/O. Ten thousand routes take about a second the first time: leave them to a thread.
        Raises `CacheNotRunning` where no app of this cache has started in this process: `audit_app(app)` is for those.
        """
        first, *others = [app.audit() for app in self._apps()]
        return reduce(Audit.joined, others, first)

    async def explain(
        self,
        asked: Any,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        *,
        base_url: str | None = None,
        partition: tuple[object, ...] | None = None,
    ) -> Explanation:
        """What a request would get now, and why: its route, what is stored for it and where, the last purge of that.

        `asked` is a URL, a path below `base_url` (scheme and host as clients send them), or a Starlette `Request`.
        `headers` are further request fields, credentials included. The dependencies of a partition do not run: give
        their values as `partition`, a tuple, or read in `unknown` what is not known without. Nothing is counted, locked
        or kept, the app is not asked, and no value of a partition or credential is told. Redis is asked once or twice,
        if it is in touch. Raises `ConfigurationError` for what is no URL, and `CacheNotRunning` as `audit` does.
        """
        fields = any_fields(headers)
        if not isinstance(method, str) or not method.isalpha() or not method.isascii():  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError(f"method is a request method such as GET, not {method!r}.")
        if partition is not None and not isinstance(partition, tuple):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError("partition is a tuple, with one value for each dependency of partition_by.")
        apps, scope = self._apps(), getattr(asked, "scope", None)
        if scope is not None:
            app = next((each for each in apps if each.serves(scope)), apps[0])
            return await app.explain(scope, method.upper(), fields, partition)
        if not isinstance(asked, str):
            raise ConfigurationError(f"explain takes a URL, a path or a Request, not {type(asked).__name__}.")
        page = page_at(asked, base_url, apps[0].root_path, self._core.root_paths)
        return await self._app_for(page).explain(page, method.upper(), fields, partition)

    # -- the apps -------------------------------------------------------------------------------

    def _apps(self) -> tuple[ServedApp, ...]:
        apps = self._core.engine.apps.served
        if not apps:
            raise CacheNotRunning(
                "No app of this cache has started in this process, so its routes are not known: start it with its "
                "lifespan, or use invalidate() and invalidate_url() here."
            )
        return apps

    def _of_name(self, name: str, parameters: Parameters) -> list[ServedApp]:
        """The apps that have a route of this name which takes the parameters; raises `UnknownRoute`."""
        if not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise _no_name("invalidate_route() takes the name of a route", name)
        found: list[ServedApp] = []
        wrong: list[UnknownRoute] = []
        for app in self._apps():
            try:
                app.url_of(name, parameters)
            except UnknownRoute as error:
                wrong.append(error)
            else:
                found.append(app)
        if not found:
            raise min(wrong, key=lambda error: bool(error.near))
        return found

    def _page(self, target: WarmTarget, base_url: str | None) -> Page:
        name: Any
        parameters: Any
        name, parameters = target if isinstance(target, tuple) and len(target) == 2 else (target, None)  # pyright: ignore[reportUnnecessaryComparison]
        named = parameters is not None
        if not isinstance(name, str) or not (parameters is None or hasattr(parameters, "keys")):
            raise _no_name("A target is a URL, a path, a route's name or (name, parameters)", target)
        parameters = parameters or {}
        app = self._apps()[0]
        if named or not (name.startswith("/") or "://" in name):
            app = self._of_name(name, parameters)[0]
            name = app.url_of(name, parameters)
        return page_at(name, base_url, app.root_path, self._core.root_paths)

    def _app_for(self, page: Page) -> ServedApp:
        first, *others = self._apps()
        # To ask one of very many routes for its answer takes a while.
        return first if not others or first.answers(page) else next((app for app in others if app.answers(page)), first)


def _no_name(takes: str, given: Any) -> ConfigurationError:
    """The error for what stands in the place of a route's name; a handler has one."""
    name = getattr(given, "__name__", None)
    return ConfigurationError(f"{takes}, not {given!r}." if name is None else f"{takes}: write {name!r}.")
