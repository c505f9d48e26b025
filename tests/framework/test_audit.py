"""`cache.audit()` and `audit_app()`: what an app's routes say of caching, started or not."""

# No postponed annotations: the handlers name classes and callables of their own test.

import time
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Header, HTTPException
from starlette.middleware.base import BaseHTTPMiddleware

from fastapi_cacheinval import (
    Audit,
    CacheMiddleware,
    CacheNotRunning,
    CacheTags,
    ConfigurationError,
    HTTPCache,
    audit_app,
    cached,
    invalidates,
    invalidates_nothing,
)
from fastapi_cacheinval.routes.auditing import Around, audit_of
from fastapi_cacheinval.routes.middleware_stack import middleware_stack_of
from fastapi_cacheinval.routes.table import RouteTable
from tests.helpers.http import ask, lifespan_of

pytestmark = pytest.mark.anyio


def tenant(x_tenant: Annotated[str, Header()]) -> str:
    return x_tenant


def admin(authorization: Annotated[str, Header()]) -> None:
    if authorization != "root":
        raise HTTPException(401)


def app_of(cache: HTTPCache | None = None, **options: Any) -> FastAPI:
    """A catalogue with a misspelt tag, a page per tenant, a guarded one, and mutations of each kind."""
    app = FastAPI()
    app.add_middleware(CacheMiddleware, cache=cache or HTTPCache(), **options)

    @app.get("/products/{number}", dependencies=[cached(ttl=300, tags=["product:{number}"], stale_if_error=60)])
    async def product(number: int, q: str = "", accept_language: Annotated[str, Header()] = "") -> str:
        return f"{number} {q} {accept_language}"

    @app.get("/products", dependencies=[cached(ttl=60, tags=["products"])])
    async def products() -> str:
        return ""

    @app.get("/mine", dependencies=[cached(ttl=60, partition_by=tenant)])
    async def mine() -> str:
        return ""

    @app.get("/report", dependencies=[cached(ttl=60, guarded_by=admin, tags=["report"])])
    async def report() -> str:
        return ""

    @app.get("/word", dependencies=[cached(ttl=60, shared=True, tags=["word"])])
    async def word(name: Annotated[str, Depends(tenant)]) -> str:
        return name

    @app.put("/products/{product_id}", dependencies=[invalidates("product:{product_id}")])
    async def write(product_id: int) -> None: ...

    @app.post("/import", dependencies=[invalidates("reports")])
    async def load() -> None: ...

    @app.post("/search", dependencies=[invalidates_nothing()])
    async def search() -> None: ...

    @app.post("/log")
    async def log() -> None: ...

    @app.get("/plain")
    async def plain() -> None: ...

    return app


def of(audit: Audit, route: str) -> Any:
    found: list[Any] = [*audit.routes, *audit.mutations]
    return next(each for each in found if each.route == route)


def test_each_cached_route_says_who_shares_it_and_why() -> None:
    """Public, by partition, behind a guard, and by its author's word; with the parts of the key, tags and lifetimes."""
    audit = audit_app(app_of())
    product = of(audit, "GET /products/{number}")
    assert product.shared_by == "everyone"
    assert product.key == ("scheme", "host", "path", "query q", "header accept-language")
    assert (product.tags, product.ttl, product.stale_if_error) == (("product:{number}",), 300, 60)
    assert (product.lookup, product.front_off) == ("front", None)
    mine = of(audit, "GET /mine")
    assert (mine.shared_by, mine.partition_by, mine.key[-1]) == ("partition", ("tenant",), "partition tenant")
    assert (mine.lookup, mine.front_off) == ("route", "partition_by and guarded_by run on every request")
    report = of(audit, "GET /report")
    assert (report.shared_by, report.guarded_by) == ("guarded", ("admin",))
    assert "admin" in report.why
    assert of(audit, "GET /word").shared_by == "declared"
    assert audit.uncached == ("GET /plain",)
    assert audit.refusals == ()


def test_each_mutation_says_which_pages_it_purges() -> None:
    """By tag under another parameter's name, and by its path and its parent's; the pages say the same."""
    audit = audit_app(app_of())
    write = of(audit, "PUT /products/{product_id}")
    assert write.purges == ("GET /products/{number}", "GET /products")
    for page in write.purges:
        assert write.route in of(audit, page).purged_by
    assert of(audit, "POST /search").only_reads


def test_the_holes_are_named_and_what_is_whole_is_not() -> None:
    """Pages that nothing purges, mutations that purge nothing, and tags in one place, with what may be meant."""
    audit = audit_app(app_of())
    assert audit.unpurged == ("GET /mine", "GET /report", "GET /word")
    # A POST to /log purges its parent collection, where that is cached; here it is not.
    assert audit.purging_nothing == ("POST /import", "POST /log")
    holes = {hole.tag: hole for hole in audit.lonely_tags}
    assert set(holes) == {"products", "report", "word", "reports"}
    assert (holes["report"].near, holes["report"].declared) == ("reports", True)
    assert (holes["reports"].near, holes["reports"].declared) == ("report", False)
    assert holes["word"].near is None
    assert str(holes["reports"]) == "'reports' is purged and never declared (POST /import). Is 'report' meant?"
    assert len(audit.holes) == 3 + 2 + 4


def test_purges_from_elsewhere_fill_holes() -> None:
    """Where sessions or events purge too, a tagged page is no hole; one that no tag could reach is one."""
    audit = audit_app(app_of(), changes_elsewhere=True)
    assert audit.unpurged == ("GET /mine",)
    assert audit.purging_nothing == ()
    cache = HTTPCache()
    cache.expect_changes()
    assert audit_app(app_of(cache)).unpurged == ("GET /mine",)


def test_tags_that_are_added_while_answering_may_fill_holes() -> None:
    """What no template says is not called missing."""
    app = FastAPI()
    app.add_middleware(CacheMiddleware, cache=HTTPCache())

    @app.get("/a", dependencies=[cached(ttl=60)])
    async def read(tags: CacheTags) -> None: ...

    @app.put("/b", dependencies=[invalidates("b")])
    async def write(tags: CacheTags) -> None: ...

    assert audit_app(app).holes == ()


def test_path_purges_count_as_they_are_set() -> None:
    """With `path_purges=False` only tags purge; with "target" the parent collection stays."""
    switched = {value: audit_app(app_of(HTTPCache(path_purges=value))) for value in (False, "target")}  # type: ignore[arg-type]
    assert of(switched[False], "PUT /products/{product_id}").purges == ("GET /products/{number}",)
    assert "GET /products" not in of(switched["target"], "PUT /products/{product_id}").purges


@pytest.mark.parametrize("path_purges", [True, "target", False])
def test_by_headers_a_target_counts_whatever_the_setting_says(path_purges: Any) -> None:
    """RFC 9111 section 4.4 has it purged: the page is no hole, and neither is its mutation."""
    app = FastAPI()
    app.add_middleware(CacheMiddleware, cache=HTTPCache(path_purges=path_purges), honour_headers=True)
    app.get("/it/{number}", dependencies=[cached(ttl=60)])(read_item)
    app.put("/it/{number}")(read_item)
    audit = audit_app(app)
    assert of(audit, "GET /it/{number}").purged_by == ("PUT /it/{number}",)
    assert of(audit, "PUT /it/{number}").purges_paths
    assert audit.holes == ()


def test_what_is_cached_by_headers_may_fill_holes() -> None:
    """A page without a policy has a path and tags of its own, which no template shows."""
    audit = audit_app(app_of(honour_headers=True))
    assert audit.purging_nothing == ()
    assert {hole.tag for hole in audit.lonely_tags} == {"products", "report", "word", "reports"}
    app = FastAPI()
    app.add_middleware(CacheMiddleware, cache=HTTPCache(), honour_headers=True)
    app.get("/a", dependencies=[cached(ttl=60)])(read_item)
    app.put("/a", dependencies=[invalidates("stock")])(read_item)
    app.put("/b", dependencies=[invalidates("another", paths=False)])(read_item)
    audit = audit_app(app)
    assert (audit.holes, audit.warnings) == ((), ())


async def test_a_running_app_says_the_same() -> None:
    """`cache.audit()` of the started app is `audit_app(app)`, before and after, and is not made twice."""
    cache = HTTPCache()
    app = app_of(cache)
    before = audit_app(app)
    with pytest.raises(CacheNotRunning, match="started"):
        cache.audit()
    async with lifespan_of(app):
        await ask(app, "/products/1")
        assert cache.audit() == before == audit_app(app)
        assert cache.audit() is cache.audit()


async def test_an_audit_leaves_the_app_as_it_is() -> None:
    """It starts afterwards as if nothing had been: middleware may be added, and the front lookup answers."""
    cache = HTTPCache()
    app = app_of(cache)
    audit_app(app)
    app.add_middleware(BaseHTTPMiddleware, dispatch=lambda request, call_next: call_next(request))
    for _ in range(2):
        answer = await ask(app, "/products")
    assert answer.headers["cache-status"].startswith("cacheinval; hit")
    assert cache._core.counters.hits == 1


def test_layers_inside_turn_the_front_off_before_the_start_too() -> None:
    """A middleware of the author's inside ours is named; outside it does not matter."""
    app = FastAPI()
    app.add_middleware(BaseHTTPMiddleware)
    app.add_middleware(CacheMiddleware, cache=HTTPCache())
    app.get("/a", dependencies=[cached(ttl=60)])(lambda: "a")
    assert "BaseHTTPMiddleware would be skipped" in str(of(audit_app(app), "GET /a").front_off)
    outside = app_of()
    outside.add_middleware(BaseHTTPMiddleware)
    assert of(audit_app(outside), "GET /products").lookup == "front"
    assert of(audit_app(app_of(front=False)), "GET /products").front_off == "front=False"


def test_an_app_inside_the_middleware_is_found() -> None:
    """`CacheMiddleware(app)` as the outermost layer, and layers around it."""
    inner = FastAPI()
    inner.get("/a", dependencies=[cached(ttl=60)])(lambda: "a")
    wrapped = CacheMiddleware(inner, HTTPCache())
    assert [each.route for each in audit_app(wrapped).routes] == ["GET /a"]

    class Layer:
        def __init__(self, app: Any) -> None:
            self.app = app

    assert [each.route for each in audit_app(Layer(wrapped)).routes] == ["GET /a"]


def test_what_would_not_start_gives_its_refusals() -> None:
    """Each refused route is one refusal, and nobody shares it; nothing is raised."""
    app = FastAPI()
    app.add_middleware(CacheMiddleware, cache=HTTPCache())
    for path in ("/a", "/b"):
        app.get(path, dependencies=[cached(ttl=60)])(handler_that_reads_its_caller)
    audit = audit_app(app)
    assert len(audit.refusals) == 2
    assert all("partition_by" in line for line in audit.refusals)
    assert of(audit, "GET /a").shared_by == "nobody"
    assert audit.holes[:2] == audit.refusals


async def handler_that_reads_its_caller(name: Annotated[str, Depends(tenant)]) -> str:
    return name


@pytest.mark.parametrize("thing", [None, 42, "app", object(), lambda: None])
def test_what_is_no_app_is_refused(thing: Any) -> None:
    """With what to give, and no traceback from deep inside."""
    with pytest.raises(ConfigurationError, match="audit_app"):
        audit_app(thing)


def test_an_app_without_the_middleware_is_told_so() -> None:
    """The line to write is in the message."""
    with pytest.raises(ConfigurationError, match="add_middleware"):
        audit_app(FastAPI())


def test_ten_thousand_routes_are_audited_in_seconds() -> None:
    """The work grows with the routes, and not with their pairs: four times as many take no more than some eight times."""

    def taken(count: int) -> float:
        app = FastAPI()
        app.add_middleware(CacheMiddleware, cache=HTTPCache())
        for number in range(count):
            app.get(f"/r{number}/{{item}}", dependencies=[cached(ttl=60, tags=[f"r{number}:{{item}}"])])(read_item)
            app.put(f"/r{number}/{{item}}", dependencies=[invalidates(f"r{number}:{{item}}")])(read_item)
        plans = RouteTable(app, middleware_stack_of(app.router)).plans
        began = time.process_time()
        audit = audit_of(plans, Around())
        spent = time.process_time() - began
        assert len(audit.routes) == len(audit.mutations) == count
        assert audit.routes[-1].purged_by == (f"PUT /r{count - 1}/{{item}}",)
        assert audit.holes == ()
        return spent

    assert taken(1200) < 8 * taken(300)


async def read_item(item: int) -> int:
    return item
