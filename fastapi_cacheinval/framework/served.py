"""An app as its cache may ask it: by the names of its routes, and without a client."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from difflib import get_close_matches
from operator import is_
from typing import Any

from starlette.types import Scope

from fastapi_cacheinval.core.audit import Audit
from fastapi_cacheinval.core.explanation import Explanation
from fastapi_cacheinval.core.outcome import Result
from fastapi_cacheinval.core.warming import Page, WarmResult
from fastapi_cacheinval.errors import UnknownRoute
from fastapi_cacheinval.framework.app_context import AppContext
from fastapi_cacheinval.framework.explaining import Explaining
from fastapi_cacheinval.framework.incoming import Incoming, RefreshOrder
from fastapi_cacheinval.framework.receiving import nobody
from fastapi_cacheinval.ports.served import Parameters
from fastapi_cacheinval.routes.auditing import Around, audit_table
from fastapi_cacheinval.routes.named_routes import NamedRoute

__all__ = ["Served"]

logger = logging.getLogger("fastapi_cacheinval.refresh")

_MOST_NEAR = 5
_FOUND = {Result.HIT: "found", Result.COLLAPSED: "found", Result.STALE: "stale"}


class Served:
    """Made of what a middleware knows of its app, and of the scope that it was first looked at with."""

    def __init__(self, app_context: AppContext, scope: Scope) -> None:
        self._app_context = app_context
        self._app = scope.get("app")
        self._audited: tuple[tuple[object, ...], Audit] = (), Audit()
        # The same mapping: an app may fill it while it starts.
        self._state: Any = scope.get("state", {})

    @property
    def root_path(self) -> str:
        """The root path that the app itself declares; empty where it declares none."""
        return str(getattr(self._app, "root_path", "") or "")

    @property
    def title(self) -> str:
        """What it calls itself; the name of its class where it has no title."""
        return str(getattr(self._app, "title", None) or type(self._app).__name__)

    def audit(self) -> Audit:
        """What its routes say of caching; made anew only where they have changed."""
        app_context = self._app_context
        plans = app_context.table.plans
        known, audit = self._audited
        if len(plans) != len(known) or not all(map(is_, plans, known)):
            cache = app_context.cache
            around = Around(cache.settings.path_purges, app_context.mode.by_headers, cache.changes_elsewhere)
            audit = audit_table(app_context.table, around)
            self._audited = plans, audit
        return audit

    async def explain(
        self,
        asked: Page | Mapping[str, Any],
        method: str,
        headers: tuple[tuple[bytes, bytes], ...],
        partition: tuple[object, ...] | None,
    ) -> Explanation:
        """What a request would get that is not made: for a page, or of the scope of one that was made."""
        if isinstance(asked, Page):
            scope = {**self._scope(asked, headers), "method": method}
        else:
            scope = {**asked, "method": method, "headers": [*asked["headers"], *headers]}
        return await Explaining(self._app_context, scope, partition).explain()

    # -- by name --------------------------------------------------------------------------------

    def route_names(self) -> tuple[str, ...]:
        """The names of its routes that answer GET."""
        return tuple(dict.fromkeys(route.name for route in self._app_context.table.named()))

    def tags_of(self, name: str, parameters: Parameters) -> tuple[str, ...]:
        """What stored responses of the routes of a name carry, paths included; raises `UnknownRoute`."""
        found = [tag for route in self._taking(name, parameters) for tag in route.tags(parameters)]
        return tuple(dict.fromkeys(found))

    def url_of(self, name: str, parameters: Parameters) -> str:
        """The path and query of the first route of a name that takes the parameters; raises `UnknownRoute`."""
        return self._taking(name, parameters)[0].url(parameters)

    def _taking(self, name: str, parameters: Parameters) -> list[NamedRoute]:
        """The routes of a name that take the parameters, at least one."""
        named = [route for route in self._app_context.table.named() if route.name == name]
        wrong = [route.refusal(parameters) for route in named]
        found = [route for route, why in zip(named, wrong, strict=True) if why is None]
        if found:
            return found
        if wrong and wrong[0] is not None:
            raise UnknownRoute(name, wrong[0])
        names = self.route_names()
        near = tuple(get_close_matches(name, names)) or names[:_MOST_NEAR]
        raise UnknownRoute(name, f"No route that answers GET is called {name!r}.", near)

    # -- without a client -----------------------------------------------------------------------

    def serves(self, scope: Mapping[str, Any]) -> bool:
        """Whether a request with this scope came to it."""
        return scope.get("app") is self._app

    def answers(self, page: Page) -> bool:
        """Whether a route of its answers this page."""
        return self._app_context.table.answers("GET", page.path, self._scope(page, ()))

    def _scope(self, page: Page, headers: tuple[tuple[bytes, bytes], ...]) -> Scope:
        host, _, port = page.host.partition(":")
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": page.scheme,
            "path": page.path,
            "raw_path": page.raw_path.encode(),
            "query_string": page.query.encode(),
            "root_path": page.root_path,
            "headers": [(b"host", page.host.encode()), *headers],
            "client": None,
            "server": (host, int(port) if port.isdigit() else None),
            "app": self._app,
            "state": dict(self._state),
            "extensions": {},
        }

    async def fetch(self, page: Page, headers: tuple[tuple[bytes, bytes], ...], *, forced: bool) -> WarmResult:
        """Ask for a page as nobody; `forced` forwards it whatever is stored. Never raises for what the app does."""
        app_context = self._app_context
        core, runtime = app_context.cache, app_context.cache.runtimes.get(asyncio.get_running_loop())
        if runtime is None or runtime.closing:
            # The cache has been stopped meanwhile.
            return WarmResult(page.url, "cancelled")
        order = RefreshOrder(None, forced=forced)
        error: Exception | None = None

        async def work() -> str:
            nonlocal error
            closed = None if core.enabled else "disabled"
            incoming = Incoming(
                app_context, runtime, self._scope(page, headers), nobody, order.hear, closed=closed, order=order
            )
            try:
                await app_context.mode.read(incoming)
            except Exception as raised:
                error = raised
                logger.log(runtime.log_once.level("warming"), "a page could not be fetched", exc_info=True)
                raise
            return order.outcome

        ended: asyncio.Future[str] = runtime.loop.create_future()

        def done(outcome: str) -> None:
            if not ended.done():
                ended.set_result(outcome)

        # Bounded in time, in the context of start-up, and ended with the cache, as a refresh is.
        task = runtime.refresh(repr((id(order), page)).encode(), work, done, order.cut)
        try:
            outcome = await ended
        except asyncio.CancelledError:
            task.cancel()
            raise
        return _result(page, order, outcome, error)


def _result(page: Page, order: RefreshOrder, outcome: str, error: Exception | None) -> WarmResult:
    told, status = order.told, order.status
    if error is not None:
        return WarmResult(page.url, "failed", status, type(error).__name__)
    if outcome in ("timeout", "cancelled"):
        return WarmResult(page.url, outcome, status)
    if told is not None and told.result in _FOUND:
        return WarmResult(page.url, _FOUND[told.result], status)
    if told is None or told.result is Result.BYPASS:
        # A route without a policy says nothing of itself.
        outcome = "refused" if told is None and status is not None and status >= 400 else "uncached"
    return WarmResult(page.url, outcome, status, None if told is None else told.detail)
