"""The apps that processes serve in the tests of keys; `KIND` says which, `NAME` who this process is."""

from __future__ import annotations

import os
from typing import Annotated, Any

from fastapi import Depends, FastAPI
from starlette.responses import PlainTextResponse
from starlette.routing import Host

from fastapi_cacheinval import CacheMiddleware, HTTPCache, cached

KIND, NAME = os.environ["KIND"], os.environ.get("NAME", "")

cache = HTTPCache.from_url(os.environ["REDIS"], secret="a secret that all replicas share", staleness_bound=6)


class Tenant:
    """What no signature and no plain value shows."""

    def __init__(self, name: str) -> None:
        # What a list holds may change, and does not count.
        self._names = [name]

    @property
    def name(self) -> str:
        """The tenant's."""
        return self._names[0]


def tenant_app(name: str) -> FastAPI:
    """A tenant's app, of the same code as every other's."""
    tenant, made = Tenant(name), FastAPI()

    @made.get("/page", dependencies=[cached(ttl=60)])
    async def page() -> str:
        return tenant.name

    return made


def named_app(name: str) -> FastAPI:
    """A tenant's app with a middleware of its own over the one cache; its handler holds on to the name itself."""
    made = FastAPI()
    made.add_middleware(CacheMiddleware, cache=cache)

    @made.get("/page", dependencies=[cached(ttl=60)])
    async def page() -> str:
        return name

    return made


class Dispatcher:
    """Hands a request to the app that `X-Tenant` names, made when it is first asked for."""

    def __init__(self, make: Any) -> None:
        self._make = make
        self._apps: dict[str, Any] = {}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        tenant = dict(scope["headers"]).get(b"x-tenant", b"none").decode()
        if tenant not in self._apps:
            self._apps[tenant] = self._make(tenant)
        await self._apps[tenant](scope, receive, send)


def source() -> str:
    """What a process may override."""
    return "plain"


app = FastAPI()
app.root_path = os.environ.get("ROOT_PATH", "")
headers: Any = KIND == "headers"
app.add_middleware(CacheMiddleware, cache=cache, honour_headers=headers)


@app.get("/control", dependencies=[cached(ttl=60)])
async def control() -> int:
    """A page that all processes share."""
    return os.getpid()


@app.get("/statistics")
async def statistics() -> Any:
    """How this process stands."""
    found = cache.statistics()
    return {"live": found.lease_remaining > 0, "l2": dict(found.l2)}


if KIND == "dispatcher":
    app.mount("/tenants", Dispatcher(tenant_app))
elif KIND == "apps":
    # Outside the one middleware, which passes what comes first.
    inner, app = app, FastAPI()  # type: ignore[assignment]
    dispatch = Dispatcher(named_app)

    async def either(scope: Any, receive: Any, send: Any) -> None:
        tenants = scope["type"] == "http" and scope["path"] == "/page"
        await (dispatch if tenants else inner)(scope, receive, send)

    app = either  # type: ignore[assignment]
elif KIND == "overrides":

    @app.get("/page", dependencies=[cached(ttl=60)])
    async def page(value: Annotated[str, Depends(source)]) -> str:
        """What the dependency gives."""
        return value

    if NAME:
        app.dependency_overrides[source] = lambda: NAME
elif KIND == "hosts":
    for tenant_name in NAME.split(","):
        app.router.routes.append(Host(f"{tenant_name}.example", tenant_app(tenant_name)))
elif KIND == "headers":

    @app.get("/page")
    async def by_headers() -> PlainTextResponse:
        """Whose it is, for everybody."""
        return PlainTextResponse(NAME, headers={"cache-control": "public, max-age=60"})

else:

    @app.get("/page", dependencies=[cached(ttl=60)])
    async def own_page() -> str:
        """Whose page it is."""
        return NAME
