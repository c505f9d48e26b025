"""The audit of an app that has not been started: nothing is connected, and nothing of the app is changed."""

from __future__ import annotations

import inspect
from typing import Any

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware

from fastapi_cacheinval.cache import HTTPCache, internals_of
from fastapi_cacheinval.core.audit import Audit
from fastapi_cacheinval.errors import ConfigurationError
from fastapi_cacheinval.middleware import CacheMiddleware
from fastapi_cacheinval.routes.auditing import Around, audit_table
from fastapi_cacheinval.routes.layer_kinds import is_harmless, name_of, replaced
from fastapi_cacheinval.routes.middleware_stack import MiddlewareStack, middleware_stack_of
from fastapi_cacheinval.routes.outer_stack import outer_stack_of
from fastapi_cacheinval.routes.place import Watched
from fastapi_cacheinval.routes.table import RouteTable

__all__ = ["audit_app"]


def audit_app(app: Any, *, changes_elsewhere: bool = False) -> Audit:
    """What an app's routes say of caching, whether it has been started or not: see `HTTPCache.audit`.

    `app` is what a server is given: a FastAPI or Starlette application, or layers around one. No connection is made and
    no handler runs. What would keep the app from starting is in `refusals`. `changes_elsewhere` says that purges also
    come from sessions or events that the app only knows once it has started. Raises `ConfigurationError` where no
    `CacheMiddleware` can be found, or for what is no app.
    """
    found = outer_stack_of(app, CacheMiddleware).found
    if isinstance(found, CacheMiddleware):
        inside, cache = middleware_stack_of(found.app), found.cache
        table = RouteTable(inside.app, inside, front=found.front)
        return audit_table(table, _around(cache, by_headers=found.by_headers, changes_elsewhere=changes_elsewhere))
    application = middleware_stack_of(app).app
    if not isinstance(application, Starlette):
        raise ConfigurationError(
            f"An audit needs a FastAPI or Starlette application, and {name_of(type(app))} leads to none. Name what the "
            "server is given: audit_app(app)."
        )
    for place, middleware in enumerate(application.user_middleware):
        kind: Any = middleware.cls
        if inspect.isclass(kind) and issubclass(kind, CacheMiddleware):
            return _of_application(application, place, changes_elsewhere=changes_elsewhere)
    raise ConfigurationError(
        "The app has no CacheMiddleware, so nothing is cached. Add it: "
        "app.add_middleware(CacheMiddleware, cache=cache). Where it stands in a mounted app, audit that one."
    )


def _of_application(app: Starlette, place: int, *, changes_elsewhere: bool) -> Audit:
    """The audit of an application that has not made its stack; the middleware will stand at this place in it."""
    middleware: Any = app.user_middleware[place]
    # It may be given by place as well; the app is the first.
    given: Any = inspect.signature(CacheMiddleware).bind(None, *middleware.args, **middleware.kwargs).arguments
    cache: HTTPCache = given.get("cache") or HTTPCache()
    by_headers = bool(given.get("honour_headers", False))
    table = RouteTable(app, _inside(app, app.user_middleware[place + 1 :]), front=given.get("front"))
    return audit_table(table, _around(cache, by_headers=by_headers, changes_elsewhere=changes_elsewhere))


def _inside(app: Starlette, layers: list[Any]) -> MiddlewareStack:
    """What will stand between the middleware and the routes, once the app makes its stack."""
    kinds = [each.cls for each in layers]
    behind = middleware_stack_of(app.router)
    own = replaced(app, (FastAPI, Starlette), ("__call__", "build_middleware_stack"))
    guards = [name_of(kind) for kind in kinds if not is_harmless(kind)]
    return MiddlewareStack(
        app=app,
        layers=tuple(dict.fromkeys([*own, *guards, *behind.layers])),
        cors=any(kind is CORSMiddleware for kind in kinds),
        writers=behind.writers,
        start=app,
        watched=Watched(),
    )


def _around(cache: HTTPCache, *, by_headers: bool, changes_elsewhere: bool) -> Around:
    core = internals_of(cache)
    return Around(core.settings.path_purges, by_headers, changes_elsewhere or core.changes_elsewhere)
