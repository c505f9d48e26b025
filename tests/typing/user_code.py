"""What users write, as a type checker sees it: checked with mypy and pyright, both strict, by the tests beside it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Annotated, assert_type

import httpx
from fastapi import APIRouter, Depends, FastAPI, Request, Response
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker
from starlette.types import ASGIApp

from fastapi_cacheinval import (
    CacheinvalError,
    CacheMiddleware,
    CachePolicy,
    CacheTags,
    CallerDependentRoute,
    ConfigurationError,
    HeaderOptions,
    HeaderRule,
    HTTPCache,
    PartitionBy,
    Receipt,
    RefusedRoute,
    RefusedRoutes,
    ResponseToStore,
    WarmReport,
    WarmResult,
    cached,
    invalidates,
    invalidates_nothing,
    purge_with_request,
)
from fastapi_cacheinval.contrib.sqlalchemy import Collector, collect_changes
from fastapi_cacheinval.testing import (
    FakeClock,
    assert_hit,
    assert_miss,
    assert_stale,
    capture_invalidations,
)

cache = HTTPCache(
    namespace="shop",
    version="2",
    l1_max_bytes=1 << 20,
    max_body_bytes=1 << 16,
    staleness_bound=2.0,
    stale_when_disconnected=0,
    mutations_when_disconnected="refuse",
    secret="not a secret",
    clock=FakeClock(),
    collapse_timeout=5.0,
    max_variants=32,
    read_your_writes=False,
    enabled=True,
)
assert_type(HTTPCache.from_url("memory://", namespace="shop"), HTTPCache)
assert_type(HTTPCache.from_env(), HTTPCache)
assert_type(HTTPCache.from_env({"CACHEINVAL_URL": "memory://"}, path_purges="target", enabled=False), HTTPCache)

# One lifetime, several kinds of it, and what is computed.
HEADERS = HeaderOptions(default_ttl=timedelta(minutes=1), rules=[("/static/*", 3600)])
RULES = HeaderOptions(
    default_ttl=60,
    rules=[
        ("/static/*", 3600),
        ("/pages/*", timedelta(minutes=5)),
        ("/api/*", HeaderRule(ttl=0, override=True)),
    ],
)
COMPUTED = HeaderOptions(rules=((f"/{name}/*", 60.0) for name in ("a", "b")))
assert_type(RULES.default_ttl, float | timedelta | None)


async def by_name(cache: HTTPCache) -> None:
    """Routes by their names, and pages before a client asks."""
    assert_type(await cache.invalidate_route("read_product", product_id=42), Receipt)
    assert_type(await cache.invalidate_route("listed", {"soft": 1}, soft=True, wait="all"), Receipt)
    report = await cache.warm(["/a", "front_page", ("read_product", {"product_id": 42})], base_url="https://a.example")
    assert_type(report, WarmReport)
    assert_type(report.missing, tuple[WarmResult, ...])
    assert_type(await cache.refresh_url("https://a.example/a", headers={"accept": "text/html"}), WarmResult)


app = FastAPI()
app.add_middleware(CacheMiddleware, cache=cache)
app.add_middleware(CacheMiddleware)
app.add_middleware(CacheMiddleware, cache=cache, honour_headers=False, front=True, emit_surrogate_key=False)
wrapped: ASGIApp = CacheMiddleware(app)
wrapped = CacheMiddleware(app, cache, emit_cache_status=False)


def is_whole(response: ResponseToStore) -> bool:
    """A predicate over a response."""
    assert_type(response.header("x-partial"), str | None)
    return response.status == 200 and bool(response.body)


DECIDED = CachePolicy(
    ttl=60,
    stale_if_error=60,
    soft_timeout=0.5,
    hard_timeout=timedelta(seconds=5),
    ttl_from_response=True,
    should_store=is_whole,
)
CATALOGUE = CachePolicy(ttl=300, stale_while_revalidate=3600, stale_if_error=86400)
LONG = CachePolicy(ttl=timedelta(days=2), tags=["products"], statuses={200: 60, 404: 5}, jitter=0, early_refresh=0)


def tenant(host: Annotated[str, "header"] = "a") -> str:
    """Any dependency will do as a partition."""
    return host


def require_admin() -> None:
    """Any dependency will do as a guard."""


router = APIRouter(prefix="/brands", dependencies=[cached(ttl=60), invalidates("brands")])


@app.get("/products/{product_id}", dependencies=[cached(CATALOGUE, tags=["product:{product_id}"])])
async def read_product(product_id: int, tags: CacheTags) -> dict[str, int]:
    """Tags found out while answering."""
    assert_type(tags.add("brand:7", "brand:8"), None)
    return {"id": product_id}


@app.put("/products/{product_id}", dependencies=[invalidates("product:{product_id}", "products", soft=True)])
def update_product(product_id: int, tags: CacheTags) -> Response:
    """Add to what is purged."""
    tags.add(f"product:{product_id}")
    cache.invalidate_sync("products", soft=True)
    return Response()


@app.get("/dashboard", dependencies=[cached(ttl=60, partition_by=tenant)])
@app.get("/both", dependencies=[cached(ttl=60, partition_by=(tenant, Depends(tenant)), guarded_by=require_admin)])
@app.get("/reports", dependencies=[cached(LONG, guarded_by=Depends(require_admin), cache_control="no-store")])
async def dashboard() -> str:
    """Covered."""
    return ""


class User:
    """What a dependency gives, and no key holds."""

    id: int = 0


def current_user(x_user: str = "") -> User:
    """Returns it."""
    return User()


async def awaited_user(x_user: str = "") -> User:
    """Gives it when awaited."""
    return User()


def yielded_user(x_user: str = "") -> Iterator[User]:
    """Yields it."""
    yield User()


async def async_yielded_user(x_user: str = "") -> AsyncIterator[User]:
    """Yields it when awaited."""
    yield User()


def id_of(user: User) -> int:
    """A part of it that a key holds."""
    return user.id


def length_of(text: str) -> int:
    """A key of something else."""
    return len(text)


PARTITIONS = (
    PartitionBy(current_user, key=lambda user: user.id),
    PartitionBy(awaited_user, key=lambda user: user.id),
    PartitionBy(yielded_user, key=id_of),
    PartitionBy(async_yielded_user, id_of),
    PartitionBy(User, key=id_of),
    PartitionBy(Depends(current_user), key=id_of),
)


@app.get("/accounts", dependencies=[cached(ttl=60, partition_by=PARTITIONS, vary=["x-edition-key"])])
@app.get("/account", dependencies=[cached(ttl=60, partition_by=PARTITIONS[0], guarded_by=require_admin)])
async def accounts() -> str:
    """Kept apart by a part of a value."""
    return ""


@app.get("/page", dependencies=[cached(ttl=60, partition_by=PARTITIONS[0], request_is_shared=True)])
async def page(request: Request) -> str:
    """Made with the request."""
    return str(request.url)


def refused(error: CacheinvalError) -> None:
    """Read what a refusal says."""
    match error:
        case RefusedRoutes():
            assert_type(error.errors, tuple[ConfigurationError, ...])
        case CallerDependentRoute():
            assert_type(error.parameters, tuple[str, ...])
            assert_type(error.advice, str)
        case RefusedRoute():
            assert_type(error.trails, tuple[str, ...])
            assert_type((error.route, error.cause, error.cure), tuple[str, str, str])
        case _:
            raise error


async def by_hand() -> None:
    """Invalidate from anywhere."""
    receipt = await cache.invalidate("products", "brands", soft=True, wait="all")
    assert_type(receipt.term, int)
    assert_type(receipt.seq, int)
    assert_type(receipt.tags, tuple[str, ...])
    assert_type(receipt.soft, bool)
    assert_type(receipt.replicas, int | None)
    assert_type(receipt.seconds, float | None)
    receipt = await cache.invalidate_url("/products/42", soft=True, wait=None)
    receipt = await cache.clear(soft=True, wait="all")
    assert_type(receipt.seq, int)
    try:
        async with cache:
            cache.statistics()
    except CacheinvalError:
        pass


def check(response: httpx.Response) -> None:
    """Use what the testing module gives."""
    clock = FakeClock()
    clock.tick(1.5)
    assert_hit(response)
    assert_miss(response)
    assert_stale(response)
    with capture_invalidations(cache) as receipts:
        assert_type(receipts[0].seq, int)


class Base(DeclarativeBase):
    """Models of a user's."""


class Product(Base):
    """Tagged by a mapping."""

    __tablename__ = "product"
    id: Mapped[int] = mapped_column(primary_key=True)


class Outbox:
    """Keeps tags in the transaction."""

    def add(self, session: Session, tags: tuple[str, ...]) -> None:
        """Write them."""


def own_tags(product: Product) -> list[str]:
    """Made by a function."""
    return [f"product:{product.id}"]


TAGS = {Product: ["product:{id}", "products"]}
assert_type(collect_changes(sessionmaker(), cache, TAGS), Collector)
collect_changes(async_sessionmaker(), cache, {Product: own_tags}, wide={Product: "products"}, outbox=Outbox())
collect_changes(Session, cache, {Product: ["products", own_tags]}).stop()
collect_changes(AsyncSession, cache, lambda target: [type(target).__name__])
assert_type(purge_with_request("products", cache=cache), bool)
assert_type(cache.invalidate_soon("products", soft=True), None)

# What must be refused; an unused comment here is an error of the strict check.
CachePolicy()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
CachePolicy(ttl="300")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
HTTPCache("redis://localhost:6379/0")  # type: ignore[call-arg,arg-type]  # pyright: ignore[reportCallIssue]
cached(ttl=60, request_is_shared="yes")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
HTTPCache(path_purges="parents")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
HTTPCache.from_env(namspace="shop")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
HeaderOptions(rules=[("/static/*", "1h")])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
HeaderRule()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
HTTPCache(None)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
HTTPCache(mutations_when_disconnected="ignore")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
collect_changes(Product, cache)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
invalidates("products", paths="no")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
invalidates(paths=False)
app.post("/search", dependencies=[invalidates_nothing()])
invalidates_nothing("products")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
invalidates(7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
