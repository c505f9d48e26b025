"""What is written in a wrong shape is told the right one: each message is code that works."""

# No postponed annotations: the handlers name classes and callables of their own test.

import re
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, Header
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from fastapi_cacheinval import (
    CacheMiddleware,
    CachePolicy,
    CacheTags,
    ConfigurationError,
    HTTPCache,
    cached,
    invalidates,
    invalidates_nothing,
)
from fastapi_cacheinval.engine.workers import warn_of_other_workers
from tests.helpers.http import ask

pytestmark = pytest.mark.anyio

MARKERS = {
    "cached": lambda: cached(ttl=60),
    "invalidates": lambda: invalidates("things"),
    "invalidates_nothing": invalidates_nothing,
}


def page() -> str:
    return "page"


def said(caplog: Any, text: str) -> list[str]:
    return [line for record in caplog.records if text in (line := record.getMessage())]


@pytest.mark.parametrize("name", MARKERS)
def test_none_is_a_decorator(name) -> None:
    """Above a function it says where it belongs, and what to write there."""
    with pytest.raises(ConfigurationError, match=rf"{name}\(.*\) is no decorator.*dependencies=\[{name}\("):
        MARKERS[name]()(page)


@pytest.mark.parametrize("bare", [cached, invalidates])
def test_none_is_a_decorator_without_parentheses_either(bare) -> None:
    """`@cached` gets the function in the place of a policy."""
    with pytest.raises(ConfigurationError, match=rf"{bare.__name__} is no decorator.*dependencies=\["):
        bare(page)


@pytest.mark.parametrize("name", MARKERS)
@pytest.mark.parametrize("place", ["list", "parameter", "annotated", "app", "router"])
def test_none_is_put_into_another_depends(name, place) -> None:
    """Wherever a dependency may stand."""
    marker = MARKERS[name]()

    def by_default(it: Any = Depends(marker)) -> str:  # noqa: B008
        return ""

    def by_annotation(it: Annotated[Any, Depends(marker)]) -> str:
        return ""

    def declare() -> None:
        app = FastAPI(dependencies=[Depends(marker)] if place == "app" else [])
        router = APIRouter(dependencies=[Depends(marker)] if place == "router" else [])
        handler = {"parameter": by_default, "annotated": by_annotation}.get(place, page)
        router.get("/it", dependencies=[Depends(marker)] if place == "list" else [])(handler)
        app.include_router(router)
        app.get("/own")(page)

    with pytest.raises(ConfigurationError, match=rf"write dependencies=\[{name}\(.*not Depends\({name}\("):
        declare()


@pytest.mark.parametrize("name", MARKERS)
@pytest.mark.parametrize("place", ["app", "router", "include", "route"])
def test_dependencies_are_a_list(name, place) -> None:
    """`dependencies=cached(...)` says so at every place that takes dependencies."""
    marker: Any = MARKERS[name]()

    def declare() -> None:
        app = FastAPI(dependencies=marker if place == "app" else None)
        router = APIRouter(dependencies=marker if place == "router" else None)
        router.get("/it", dependencies=marker if place == "route" else None)(page)
        app.include_router(router, dependencies=marker if place == "include" else None)
        list(app.routes)

    with pytest.raises(ConfigurationError, match=rf"dependencies is a list: write dependencies=\[{name}\("):
        declare()


@pytest.mark.parametrize("name", MARKERS)
def test_the_right_shapes_work(name) -> None:
    """In a list, as a default and in an annotation; the markers compare and hash as any `Depends`."""
    marker: Any = MARKERS[name]()

    def by_default(it: Any = marker) -> str:
        return ""

    def by_annotation(it: Annotated[Any, marker]) -> str:
        return ""

    app = FastAPI(dependencies=[marker])
    handlers: list[Any] = [page, by_default, by_annotation]
    for number, handler in enumerate(handlers):
        app.post(f"/{number}", dependencies=[marker])(handler)
    assert marker == marker  # noqa: PLR0124
    assert len({marker, marker}) == 1


@pytest.mark.parametrize("url", ["redis://:hunter2@localhost/0", "memory://"])
def test_a_url_belongs_into_from_url(url) -> None:
    """The message names it, and does not repeat a password."""
    make: Any = HTTPCache
    with pytest.raises(ConfigurationError, match=r"Write HTTPCache\.from_url\(\.\.\.\)") as refused:
        make(url)
    assert "hunter2" not in str(refused.value)


def test_a_client_belongs_into_from_client() -> None:
    """Whatever is given by position."""
    make: Any = HTTPCache
    with pytest.raises(ConfigurationError, match=r"by name, no object. Write HTTPCache\.from_client\(\.\.\.\)"):
        make(object())


def test_a_url_that_is_missing_is_told_of_both_ways() -> None:
    """`os.environ.get("REDIS_URL")` gives None where it is not set."""
    make: Any = HTTPCache
    with pytest.raises(ConfigurationError, match=r"not None.*HTTPCache\.from_url\(\.\.\.\), or HTTPCache\(\)"):
        make(None)


async def test_a_cache_is_no_middleware() -> None:
    """`add_middleware(HTTPCache)` is told the line."""
    app = FastAPI()
    app.get("/it")(page)
    wrong: Any = HTTPCache
    app.add_middleware(wrong)
    with pytest.raises(ConfigurationError, match=r"no app. Write app\.add_middleware\(CacheMiddleware, cache=cache\)"):
        await ask(app, "/it")


@pytest.mark.parametrize("given", ["redis://:hunter2@redis:6379", None])
def test_a_url_is_none_of_the_environments_arguments(given: str | None) -> None:
    """`from_env` has it from its variable; by position or by name it belongs into `from_url`."""
    make: Any = HTTPCache.from_env
    with pytest.raises(ConfigurationError, match=r"CACHEINVAL_URL.*HTTPCache\.from_url\(\.\.\.\)") as refused:
        make(url=given)
    assert "hunter2" not in str(refused.value)
    if given is not None:
        with pytest.raises(ConfigurationError, match=r"HTTPCache\.from_url\(\.\.\.\)") as refused:
            make(given)
        assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("name", ["url", "redis_url", "REDIS_URL"])
def test_a_url_is_no_setting(name: str) -> None:
    """Also by name it belongs into `from_url`, and is not repeated."""
    make: Any = HTTPCache
    with pytest.raises(ConfigurationError, match=r"Write HTTPCache\.from_url\(\.\.\.\)") as refused:
        make(**{name: "redis://:hunter2@redis:6379"})
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("given", [["a", "b"], ("a",), {"a"}, frozenset(["a"]), {"a": 1}])
async def test_tags_are_given_one_by_one(given) -> None:
    """To each call that takes tags; a list would have become one tag that nothing carries."""
    cache = HTTPCache()
    async with cache:
        with pytest.raises(ConfigurationError, match=r"write \*tags"):
            await cache.invalidate(given)
        with pytest.raises(ConfigurationError, match=r"write \*tags"):
            await cache.deliver(given)
        with pytest.raises(ConfigurationError, match=r"write \*tags"):
            cache.invalidate_soon(given)
        assert cache.statistics().dropped_tags == 0
        await cache.invalidate(*given)
    with pytest.raises(ConfigurationError, match=r"write \*tags, or 'a', 'b' in place of \['a', 'b'\]"):
        invalidates(given)


async def test_a_number_is_no_tag() -> None:
    """The message says how to make one of it."""
    cache: Any = HTTPCache()
    async with cache:
        with pytest.raises(ConfigurationError, match=r"A tag is a str, not int: write f'product:\{product_id\}'"):
            await cache.invalidate(42)


async def test_a_handler_that_adds_a_list_is_told() -> None:
    """`tags.add([...])` fails each time, so its author sees it at the first."""
    app = FastAPI()

    @app.get("/it", dependencies=[cached(ttl=60)])
    async def handler(tags: CacheTags) -> str:
        wrong: Any = ["a", "b"]
        tags.add(wrong)
        return ""

    app.add_middleware(CacheMiddleware, cache=HTTPCache())
    with pytest.raises(ConfigurationError, match=r"write \*tags"):
        await ask(app, "/it")


async def test_a_template_by_hand_is_told_to_be_an_f_string(caplog) -> None:
    """Said once, with the line; the purge itself never raises, for tags may carry clients' data."""
    cache = HTTPCache()
    async with cache:
        for _ in range(2):
            await cache.invalidate("product:{product_id}")
        await cache.invalidate("x{}", "x{0}", 'x{"a":1}')
    (line,) = said(caplog, "no template")
    assert "Write f'product:{product_id}'" in line


@pytest.mark.parametrize("tag", ["product:*", "*", "brand:7:*"])
async def test_a_star_by_hand_is_told_to_be_no_pattern(caplog, tag) -> None:
    """Tags are compared whole."""
    cache = HTTPCache()
    async with cache:
        for _ in range(2):
            await cache.invalidate(tag, "5*4", "a*b")
    (line,) = said(caplog, "no pattern")
    assert repr(tag) in line
    common = tag.rstrip(":*")
    assert (f"as tags=[{common!r}], and purge that." if common else "To purge everything, call cache.clear().") in line


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_cached_on_a_mutation_says_that_it_does_nothing(table, method) -> None:
    """Declared on the route itself; inherited it is what an author means."""
    app = FastAPI(openapi_url=None, dependencies=[cached(ttl=60)])
    app.api_route("/it", methods=[method], dependencies=[cached(ttl=5)])(page)
    app.api_route("/other", methods=[method])(page)
    app.api_route("/both", methods=["GET", method], dependencies=[cached(ttl=5)])(page)
    app.api_route("/off", methods=[method], dependencies=[cached(ttl=0)])(page)
    (line,) = table(app).warnings()
    assert f"{method} /it declares cached(), which does nothing there" in line
    assert "@app.get" in line


def require_caller(x_user: Annotated[str, Header()]) -> str:
    """Refuses who says no name."""
    return x_user


@pytest.mark.parametrize("field", ["partition_by", "guarded_by"])
@pytest.mark.parametrize("level", ["app", "router", "include"])
def test_a_cover_that_a_router_brings_to_other_methods_is_said_to_run_there(table, level: str, field: str) -> None:
    """A login below a router that is cached by user can be used by nobody; who declares the cover hears nothing."""
    covers: dict[str, Any] = {field: require_caller}
    policy = cached(ttl=60, **covers)
    app = FastAPI(openapi_url=None, dependencies=[policy] if level == "app" else [])
    router = APIRouter(dependencies=[policy] if level == "router" else [])
    router.get("/mine")(page)
    router.post("/login")(page)
    router.get("/live", dependencies=[cached(ttl=0)])(page)
    router.put("/mine", dependencies=[Depends(require_caller)])(page)
    router.get("/inner", dependencies=[cached(ttl=5, guarded_by=require_caller)])(page)
    app.include_router(router, dependencies=[policy] if level == "include" else [])
    lines = table(app).warnings()
    assert [line.partition(" runs ")[0] for line in lines] == ["POST /login", "GET /live"]
    for line in lines:
        assert "declare it: dependencies=[Depends(require_caller)]" in line


async def test_without_the_middleware_both_say_the_line(caplog) -> None:
    """`invalidates()` refuses, because a purge would be lost; `cached()` warns once."""
    app = FastAPI()
    app.post("/it", dependencies=[invalidates("x")])(page)
    app.get("/it", dependencies=[cached(ttl=60)])(page)
    line = "app.add_middleware(CacheMiddleware, cache=cache)"
    with pytest.raises(ConfigurationError, match=re.escape(line)):
        await ask(app, "/it", method="POST")
    for _ in range(2):
        assert (await ask(app, "/it")).status_code == 200
    assert len(said(caplog, line)) == 1


# -- tags in one place only ------------------------------------------------------------------------


def app_with(declared: list[str], purged: list[str], *, adds: bool = False) -> FastAPI:
    app = FastAPI(openapi_url=None)

    def plain(product_id: int) -> str:
        return ""

    def adding(product_id: int, tags: CacheTags) -> str:
        return ""

    app.get("/it/{product_id}", dependencies=[cached(ttl=60, tags=declared)])(adding if adds else plain)
    app.put("/it/{product_id}", dependencies=[invalidates(*purged)])(plain)
    return app


@pytest.mark.parametrize("adds", [True, False])
def test_a_misspelt_tag_is_told_the_one_that_is_declared(table, adds) -> None:
    """`product:` here and `products:` there: the line says which one to write."""
    (line,) = table(app_with(["products:{product_id}"], ["product:{product_id}"], adds=adds)).warnings()
    assert "PUT /it/{product_id} purges 'product:{product_id}', which no cached route declares" in line
    assert "Write 'products:{product_id}'" in line


def test_the_line_for_a_misspelt_tag_works(table) -> None:
    """With it there is nothing to warn of."""
    (line,) = table(app_with(["products:{product_id}"], ["product:{product_id}"])).warnings()
    (right,) = re.findall(r"Write '(.*?)' in", line)
    assert table(app_with(["products:{product_id}"], [right])).warnings() == []


@pytest.mark.parametrize(
    ("declared", "purged"),
    [
        (["product:{product_id}"], ["product:{product_id}"]),
        (["product:{product_id}"], ["product:42"]),
        (["product:42"], ["product:{product_id}"]),
        (["{product_id}:all"], ["7:all"]),
        (["products"], ["products"]),
    ],
)
def test_tags_that_may_meet_are_not_warned_of(table, declared, purged) -> None:
    """By whatever names and values."""
    assert table(app_with(declared, purged)).warnings() == []


def test_a_tag_that_only_a_mutation_has_is_told_where_to_be_declared(table) -> None:
    """Unless handlers add tags of their own, which no template shows."""
    (line,) = table(app_with(["products"], ["stock:{product_id}"])).warnings()
    assert "cached(..., tags=['stock:{product_id}'])" in line
    assert table(app_with(["products"], ["stock:{product_id}"], adds=True)).warnings() == []


def test_a_tag_beside_one_that_is_purged_is_a_tag_of_its_own(table) -> None:
    """Where `product:` is declared and purged, `products:` elsewhere is not told to be spelled so."""
    declared, purged = ["product:{product_id}"], ["product:{product_id}", "products:{product_id}"]
    (line,) = table(app_with(declared, purged)).warnings()
    assert "PUT /it/{product_id} purges 'products:{product_id}', which no cached route declares. Declare it" in line
    assert table(app_with(declared, purged, adds=True)).warnings() == []


def test_each_mutation_with_a_misspelt_tag_is_told_its_own_line(table) -> None:
    """With the name of its own parameter."""
    app = app_with(["products:{product_id}"], ["product:{product_id}"])
    app.delete("/it/{number}", dependencies=[invalidates("product:{number}")])(lambda number: None)
    first, second = table(app).warnings()
    assert first.startswith("PUT /it/{product_id} purges 'product:{product_id}'")
    assert "Write 'products:{number}' in one of the two places" in second


def test_an_app_that_caches_nothing_is_not_warned_of(table) -> None:
    """Its purges are for other processes."""
    app = FastAPI(openapi_url=None)
    app.put("/it", dependencies=[invalidates("a")])(page)
    assert table(app).warnings() == []


@pytest.mark.parametrize("path", ["/orders", "https://shop.example/orders?page=2"])
async def test_a_path_by_hand_is_told_to_be_no_tag(caplog, path: str) -> None:
    """Said once, with the call that purges a path; a slash elsewhere in a tag says nothing."""
    cache = HTTPCache()
    async with cache:
        await cache.invalidate("orders/7", "mail:a@b/c")
        assert caplog.records == []
        for _ in range(2):
            await cache.invalidate(path)
    (line,) = said(caplog, "no path")
    assert f"call cache.invalidate_url({path!r})" in line


# -- several caches --------------------------------------------------------------------------------


async def test_a_purge_through_a_cache_without_an_app_says_that_nobody_hears_it(caplog) -> None:
    """Two caches in one process: one serves, the other is purged. Said once."""
    app, serving, other = FastAPI(), HTTPCache(), HTTPCache()
    app.get("/it", dependencies=[cached(ttl=60)])(page)
    app.add_middleware(CacheMiddleware, cache=serving)
    await ask(app, "/it")
    async with other:
        for _ in range(2):
            await other.invalidate("things")
    (line,) = said(caplog, "serves no app and keeps everything in itself")
    assert "the one that CacheMiddleware was given" in line
    caplog.clear()
    await serving.invalidate("things")
    assert said(caplog, "serves no app") == []


async def test_a_middleware_without_a_cache_beside_one_says_which_line_is_missing(caplog) -> None:
    """`add_middleware(CacheMiddleware)` makes a cache of its own."""
    app, other = FastAPI(), HTTPCache()
    app.get("/it", dependencies=[cached(ttl=60)])(page)
    app.add_middleware(CacheMiddleware)
    for _ in range(2):
        await ask(app, "/it")
    (line,) = said(caplog, "was given no cache")
    assert "app.add_middleware(CacheMiddleware, cache=cache)" in line
    assert other.enabled


# -- what is shared, and what is not ---------------------------------------------------------------


def who(x_user: Annotated[str, Header()] = "") -> str:
    return x_user


@pytest.mark.parametrize("secret", [None, "a secret of 16 characters"])
async def test_replicas_without_a_secret_are_told_that_partitions_stay_apart(caplog, redis_server, secret) -> None:
    """With the setting to write; with one, nothing is said."""
    app = FastAPI()
    app.get("/mine", dependencies=[cached(ttl=60, partition_by=who)])(page)
    cache = HTTPCache.from_url(redis_server.url, secret=secret)
    app.add_middleware(CacheMiddleware, cache=cache)
    await ask(app, "/mine")
    await cache.stop()
    lines = said(caplog, "Replicas do not share the partitioned pages of /mine")
    assert len(lines) == int(secret is None)
    assert all("secret=os.environ" in line for line in lines)


def test_several_workers_with_memory_are_told_of_redis(caplog, monkeypatch) -> None:
    """The cure is a URL, not fewer workers."""
    monkeypatch.setattr("sys.argv", ["uvicorn", "app:app", "--workers", "4"])
    warn_of_other_workers()
    (line,) = said(caplog, "one of 4 workers")
    assert 'HTTPCache.from_url("redis://localhost:6379/0")' in line


def session() -> Any:
    yield 1


def app_with_tasks(*more: Any) -> FastAPI:
    def with_tasks(tasks: BackgroundTasks, it: Annotated[Any, Depends(session)]) -> str:
        return ""

    app = FastAPI(openapi_url=None)
    app.post("/it", dependencies=list(more))(with_tasks)
    return app


def test_background_tasks_before_a_commit_name_the_dependency(table) -> None:
    """The line to write names it as well."""
    (line,) = table(app_with_tasks()).warnings()
    assert "session exits after them" in line
    assert 'Depends(session, scope="function")' in line


def test_a_post_that_only_reads_is_not_warned_of(table) -> None:
    """It commits nothing that its tasks could miss."""
    assert table(app_with_tasks(invalidates_nothing())).warnings() == []


async def test_plain_routes_are_told_of_their_own_mode(caplog) -> None:
    """They cannot declare a policy; their headers can."""
    app = Starlette(routes=[Route("/it", lambda request: PlainTextResponse(""))])
    caplog.set_level("INFO", "fastapi_cacheinval")
    await ask(CacheMiddleware(app, cache=HTTPCache()), "/it")
    (line,) = said(caplog, "of Starlette's own")
    assert "honour_headers=True" in line


def test_a_policy_that_is_none_says_what_to_write() -> None:
    """`cached(60)` is no policy."""
    wrong: Any = 60
    with pytest.raises(ConfigurationError, match="ttl=60"):
        cached(wrong)
    wrong = CachePolicy
    with pytest.raises(ConfigurationError, match="takes a CachePolicy, not <class"):
        cached(wrong)
    with pytest.raises(ConfigurationError, match="needs a CachePolicy or a ttl"):
        cached()
    assert cached(CachePolicy(60)).dependency.policy.ttl == 60
