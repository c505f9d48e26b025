"""Lists of several kinds for several tenants: one function makes the router of each kind."""

from typing import Annotated

from fastapi import APIRouter, FastAPI, Header, HTTPException, Security
from fastapi.security import APIKeyHeader

from fastapi_cacheinval import CacheMiddleware, HTTPCache, cached, invalidates, invalidates_nothing

TENANTS = {"key-of-acme": "acme", "key-of-bolt": "bolt"}
WORDS = {"en": "nothing here", "fr": "rien ici"}
api_key = APIKeyHeader(name="X-API-Key", auto_error=False)

Store = dict[tuple[str, str], list[str]]


def current_tenant(key: Annotated[str | None, Security(api_key)]) -> str:
    """The tenant that the key belongs to."""
    if key not in TENANTS:
        raise HTTPException(401, "a key, please")
    return TENANTS[key]


def language(accept_language: Annotated[str, Header()] = "en") -> str:
    """The language that is wanted, if we speak it."""
    return accept_language if accept_language in WORDS else "en"


def make_router(kind: str, store: Store) -> APIRouter:
    """The routes of one kind of things."""
    router = APIRouter(prefix=f"/{kind}", dependencies=[Security(current_tenant)])

    @router.get("", dependencies=[cached(ttl=60, partition_by=current_tenant, tags=[kind])])
    def list_all(tenant: Annotated[str, Security(current_tenant)], speaks: Annotated[str, Security(language)]) -> str:
        return ", ".join(store.get((tenant, kind), [])) or WORDS[speaks]

    @router.get("/count", dependencies=[cached(ttl=60, guarded_by=current_tenant, tags=[kind])])
    def count() -> int:
        return sum(len(things) for (_, of), things in store.items() if of == kind)

    @router.post("", dependencies=[invalidates(kind)])
    def add(name: str, tenant: Annotated[str, Security(current_tenant)]) -> None:
        store.setdefault((tenant, kind), []).append(name)

    @router.post("/search", dependencies=[invalidates_nothing()])
    def search(word: str, tenant: Annotated[str, Security(current_tenant)]) -> list[str]:
        return [name for name in store.get((tenant, kind), []) if word in name]

    return router


def create_app() -> FastAPI:
    """Notes and tasks, none of them written yet."""
    app, store = FastAPI(openapi_url=None), Store()
    for kind in ("notes", "tasks"):
        app.include_router(make_router(kind, store))
    app.add_middleware(CacheMiddleware, cache=HTTPCache())
    return app
