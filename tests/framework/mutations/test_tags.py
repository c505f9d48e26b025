"""Which tags a mutation purges: declared, added on the way from anywhere, and named in the response."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, Response

from fastapi_cacheinval import CacheMiddleware, CacheTags, HTTPCache, add_tags, cached, invalidates
from fastapi_cacheinval.errors import ConfigurationError, MiddlewareMissing
from fastapi_cacheinval.testing import assert_hit, assert_miss, assert_stale, capture_invalidations
from tests.helpers.mutations import Shop, ask, begin, get, settle

pytestmark = pytest.mark.anyio


def _tagged(app: FastAPI, tag: str = "price", **policy: Any) -> None:
    """`GET /price`, tagged as named."""

    async def read() -> int:
        return 1

    app.get("/price", dependencies=[cached(ttl=60, tags=[tag], **policy)])(read)


@pytest.mark.parametrize("kept", ["42", "042", "+42", "0042"])
@pytest.mark.parametrize("written", ["42", "042", "+42", " 42"])
async def test_all_spellings_of_a_number_are_one_product(kept: str, written: str) -> None:
    """A template renders the validated value: whichever spelling was read and whichever is written, it is one tag."""
    shop = Shop()

    @shop.app.get("/products/{product_id}", dependencies=[cached(ttl=60, tags=["product:{product_id}"])])
    async def read(product_id: int) -> int:
        return shop.read()

    @shop.app.put("/stock/{product_id}", dependencies=[invalidates("product:{product_id}")])
    async def write(product_id: int) -> None: ...

    await shop.get(f"/products/{kept}")
    await shop.get("/products/43")
    assert (await shop.put(f"/stock/{written}")).purge == "done"
    assert_miss(await shop.get(f"/products/{kept}"))
    assert_hit(await shop.get("/products/43"))


async def test_templates_take_declared_query_parameters_with_their_defaults() -> None:
    """Of sub-dependencies too; a None renders as nothing, which is counted and no error."""
    shop = Shop()

    async def tenant(tenant: str = "main") -> str:
        return tenant

    @shop.app.put(
        "/write", dependencies=[invalidates("tenant:{tenant}", "shelf:{shelf}", "brand:{brand}"), Depends(tenant)]
    )
    async def write(shelf: int = 7, brand: str | None = None) -> None: ...

    with capture_invalidations(shop.cache) as receipts:
        await shop.put("/write")
        await shop.put("/write?tenant=b&shelf=08&brand=x%20y")
    assert [receipt.tags for receipt in receipts] == [
        ("tenant:main", "shelf:7"),
        ("tenant:b", "shelf:8", "brand:x%20y"),
    ]
    assert shop.cache.statistics().dropped_tags == 1


async def test_invalidates_of_app_router_include_route_and_dependency_unite() -> None:
    """Every `invalidates()` that applies is purged, in one line."""
    cache = HTTPCache()
    app = FastAPI(dependencies=[invalidates("app")])
    app.add_middleware(CacheMiddleware, cache=cache)
    inner = APIRouter(dependencies=[invalidates("inner")])
    outer = APIRouter(dependencies=[invalidates("outer")])

    async def deep(_: None = invalidates("deep")) -> None: ...

    @inner.put("/write", dependencies=[invalidates("route"), invalidates("route", "second"), Depends(deep)])
    async def write(_: None = invalidates("parameter")) -> None: ...

    @inner.get("/read")
    async def read() -> None: ...

    outer.include_router(inner, prefix="/inner", dependencies=[invalidates("include")])
    app.include_router(outer, prefix="/outer")
    with capture_invalidations(cache) as receipts:
        assert (await ask(app, "PUT", "/outer/inner/write")).purge == "done"
        assert (await get(app, "/outer/inner/read")).purge is None
    (receipt,) = receipts
    assert set(receipt.tags) == {"app", "inner", "outer", "include", "route", "second", "deep", "parameter"}


async def test_tags_added_while_answering_are_purged_and_never_raise() -> None:
    """By `CacheTags` in the handler and in a dependency, whatever a client has put into them."""
    shop = Shop()

    async def dependency(tags: CacheTags) -> None:
        tags.add("from-a-dependency")

    @shop.app.put("/write", dependencies=[Depends(dependency)])
    async def write(tags: CacheTags) -> None:
        tags.add("plain", "", "two words", "\x00", "ä", "x" * 2000)
        tags.add("plain")

    with capture_invalidations(shop.cache) as receipts:
        assert (await shop.put("/write")).purge == "done"
    (receipt,) = receipts
    assert receipt.tags[:4] == ("from-a-dependency", "plain", "two%20words", "%00")
    assert receipt.tags[4] == "%C3%A4"
    assert receipt.tags[5].startswith("sha256:")
    assert len(receipt.tags) == 6
    assert shop.cache.statistics().dropped_tags == 1


async def test_a_surrogate_key_header_of_the_response_is_purged() -> None:
    """Several lines and several keys in one; what is added to a response of an unsafe request names what it changed."""
    shop = Shop()
    _tagged(shop.app)

    @shop.app.put("/write")
    async def write(response: Response) -> None:
        response.headers.append("surrogate-key", "other price")
        response.headers.append("surrogate-key", "third")

    await shop.get("/price")
    with capture_invalidations(shop.cache) as receipts:
        await shop.put("/write")
    assert receipts[0].tags == ("other", "price", "third")
    assert_miss(await shop.get("/price"))


async def test_code_without_the_request_adds_tags_too() -> None:
    """`add_tags()` finds the request at hand in its context: in helpers, tasks, threads, and on a dependency's exit."""
    shop = Shop()

    async def session() -> AsyncIterator[None]:
        yield
        assert add_tags("on-exit")

    @shop.app.put("/async", dependencies=[Depends(session)])
    async def write() -> None:
        assert add_tags("handler")
        await asyncio.create_task(_adds("task"))
        await asyncio.to_thread(add_tags, "to-thread")
        context = contextvars.copy_context()
        thread = threading.Thread(target=context.run, args=(add_tags, "copied"))
        thread.start()
        thread.join()

    @shop.app.put("/sync")
    def write_in_thread(tags: CacheTags) -> None:
        assert add_tags("sync")
        tags.add("sync-own")

    with capture_invalidations(shop.cache) as receipts:
        await shop.put("/async")
        await shop.put("/sync")
    assert [set(receipt.tags) for receipt in receipts] == [
        {"handler", "task", "to-thread", "copied", "on-exit"},
        {"sync", "sync-own"},
    ]
    assert add_tags("nobody") is False


async def _adds(tag: str) -> None:
    assert add_tags(tag)


async def test_many_threads_of_one_request_lose_no_tag() -> None:
    """However they interleave, from the first tag on."""
    shop = Shop()
    together = threading.Barrier(8)

    def add(number: int) -> None:
        together.wait()
        for each in range(20):
            add_tags(f"{number}-{each}")

    @shop.app.put("/write")
    def write() -> None:
        threads = [threading.Thread(target=contextvars.copy_context().run, args=(add, number)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    with capture_invalidations(shop.cache) as receipts:
        await shop.put("/write")
    assert {tag for receipt in receipts for tag in receipt.tags} == {f"{a}-{b}" for a in range(8) for b in range(20)}


async def test_two_requests_at_once_do_not_mix_their_tags() -> None:
    """Each purges what was added while it was answered."""
    shop = Shop()
    both = asyncio.Event()
    inside = 0

    @shop.app.put("/write/{name}")
    async def write(name: str) -> None:
        nonlocal inside
        inside += 1
        if inside == 2:
            both.set()
        await both.wait()
        add_tags(name)

    with capture_invalidations(shop.cache) as receipts:
        await asyncio.gather(shop.put("/write/a"), shop.put("/write/b"))
    assert sorted(receipt.tags for receipt in receipts) == [("a",), ("b",)]


async def test_tags_that_a_background_task_adds_are_purged_when_it_has_ended() -> None:
    """The response is long gone; what the task changed is purged all the same, also what was purged before it."""
    shop = Shop()
    _tagged(shop.app)
    may_end = asyncio.Event()

    async def later() -> None:
        await may_end.wait()
        add_tags("price", "other")

    @shop.app.put("/write", dependencies=[invalidates("price")])
    async def write(background: BackgroundTasks) -> None:
        background.add_task(later)

    await shop.get("/price")
    with capture_invalidations(shop.cache) as receipts:
        call = begin(shop.app, "PUT", "/write")
        await settle()
        assert call.started
        assert_miss(await shop.get("/price"))
        assert_hit(await shop.get("/price"))
        may_end.set()
        assert (await call.answer()).purge == "done"
    assert_miss(await shop.get("/price"))
    assert [receipt.tags for receipt in receipts] == [("price",), ("price", "other")]


async def test_a_background_task_without_tags_purges_nothing_more() -> None:
    """What was purged before the response is not purged a second time for nothing."""
    shop = Shop()

    async def later() -> None: ...

    @shop.app.put("/write", dependencies=[invalidates("price")])
    async def write(background: BackgroundTasks, tags: CacheTags) -> None:
        tags.add("more")
        background.add_task(later)

    with capture_invalidations(shop.cache) as receipts:
        await shop.put("/write")
    assert [receipt.tags for receipt in receipts] == [("price", "more")]


async def test_a_soft_mutation_makes_stale_and_refreshes() -> None:
    """The next reader is given the old answer as stale while one refresh runs; the one after it has the new one."""
    shop = Shop()

    @shop.app.get("/price", dependencies=[cached(ttl=60, stale_while_revalidate=60, tags=["price"])])
    async def read() -> int:
        return shop.read()

    @shop.app.put("/price", dependencies=[invalidates("price", soft=True)])
    async def write() -> None:
        shop.value = 2

    await shop.get("/price")
    with capture_invalidations(shop.cache) as receipts:
        assert (await shop.put("/price")).purge == "done"
    assert [(receipt.soft, receipt.tags) for receipt in receipts] == [(True, ("price",))]
    stale = await shop.get("/price")
    assert_stale(stale)
    assert "ttl=-1" in stale.headers["cache-status"]
    assert stale.json() == 1
    await settle()
    fresh = await shop.get("/price")
    assert_hit(fresh)
    assert fresh.json() == 2


async def test_a_soft_purge_without_any_stale_time_forwards() -> None:
    """Where a policy allows nothing stale, stale means that the next request goes forward."""
    shop = Shop()
    _tagged(shop.app)

    @shop.app.put("/write", dependencies=[invalidates("price", soft=True)])
    async def write() -> None: ...

    await shop.get("/price")
    await shop.put("/write")
    assert_miss(await shop.get("/price"))


async def test_soft_and_hard_declarations_of_one_route_keep_their_kinds() -> None:
    """What is declared soft is purged softly, the rest hard; a tag declared both ways is purged hard."""
    shop = Shop()

    @shop.app.put("/write", dependencies=[invalidates("listing", "both", soft=True), invalidates("price", "both")])
    async def write(tags: CacheTags) -> None:
        tags.add("added")

    with capture_invalidations(shop.cache) as receipts:
        await shop.put("/write")
    assert [(receipt.soft, receipt.tags) for receipt in receipts] == [
        (False, ("price", "both", "added")),
        (True, ("listing",)),
    ]


async def test_a_late_soft_purge_leaves_no_fence() -> None:
    """A stream whose purge is soft goes out early; what is stale may still be served, so nothing is fenced."""
    shop = Shop()
    go = asyncio.Event()

    async def session() -> AsyncIterator[None]:
        yield
        await go.wait()

    @shop.app.put("/write", dependencies=[Depends(session), invalidates("price", soft=True)])
    async def write() -> Response:
        return Response(b"x", media_type="text/event-stream")

    call = begin(shop.app, "PUT", "/write")
    await settle()
    assert not shop.cache._core.engine.replica.fenced(("price",))
    go.set()
    assert (await call.answer()).purge == "queued"


async def test_cached_on_an_unsafe_method_is_inert() -> None:
    """An inherited policy stores nothing of a POST, and its partition is nobody's business there."""
    cache = HTTPCache()
    router = APIRouter(dependencies=[cached(ttl=60, tags=["price"])])
    made = 0

    @router.post("/write")
    async def write() -> int:
        nonlocal made
        made += 1
        return made

    app = FastAPI()
    app.add_middleware(CacheMiddleware, cache=cache)
    app.include_router(router)
    assert [(await ask(app, "POST", "/write")).json() for _ in range(2)] == [1, 2]


async def test_invalidates_on_a_route_of_safe_methods_only_is_a_start_up_error() -> None:
    """Declared there it can only be a mistake: the start-up fails and names the route; inherited it is inert."""
    app = FastAPI()
    app.add_middleware(CacheMiddleware, cache=HTTPCache())

    @app.get("/read", dependencies=[invalidates("price")])
    async def read() -> None: ...

    sent: list[Any] = []
    received = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

    async def receive() -> Any:
        return next(received)

    async def send(message: Any) -> None:
        sent.append(message)

    with pytest.raises(ConfigurationError):
        await app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, receive, send)
    assert [message["type"] for message in sent] == ["lifespan.startup.failed"]
    assert "GET /read" in sent[0]["message"]
    assert "invalidates('price')" in sent[0]["message"]


async def test_invalidates_inherited_by_a_safe_route_is_inert() -> None:
    """A GET under a router that declares it purges nothing, and is cached."""
    cache = HTTPCache()
    router = APIRouter(dependencies=[invalidates("price")])
    _tagged(router)  # type: ignore[arg-type]  # a router has get() as well
    app = FastAPI()
    app.add_middleware(CacheMiddleware, cache=cache)
    app.include_router(router)
    await get(app, "/price")
    assert_hit(await get(app, "/price"))
    assert cache.statistics().purges == {}


async def test_without_the_middleware_invalidates_raises() -> None:
    """Better an error than a purge that nobody makes; the handler has not run."""
    app = FastAPI()
    ran = False

    @app.put("/write", dependencies=[invalidates("price")])
    async def write() -> None:
        nonlocal ran
        ran = True

    with pytest.raises(MiddlewareMissing, match="PUT /write"):
        await ask(app, "PUT", "/write")
    assert not ran


@pytest.mark.parametrize("tag", ["", "two words", "tab\t", "ä", "x" * 1025, "{a!r}", "{", "{a.b}", "{}"])
def test_a_literal_that_is_no_tag_is_refused_when_it_is_written(tag: str) -> None:
    """The author hears of it at import, not a client at night."""
    with pytest.raises(ConfigurationError):
        invalidates(tag)


def test_invalidates_without_tags_is_refused() -> None:
    """The target path is purged without it."""
    with pytest.raises(ConfigurationError):
        invalidates()


async def test_a_template_with_a_name_that_no_parameter_has_is_a_start_up_error() -> None:
    """Never a purge of a tag that nothing carries."""
    shop = Shop()

    @shop.app.put("/write/{product_id}", dependencies=[invalidates("product:{id}")])
    async def write(product_id: int) -> None: ...

    answer = await shop.put("/write/1")
    assert answer.status_code == 500
    assert b"'id'" in answer.body


async def test_a_second_middleware_purges_once() -> None:
    """An app mounted in one that has a cache uses that one: one line, one header, in the outer cache."""
    outer, inner = Shop(), Shop()

    @inner.app.put("/write", dependencies=[invalidates("price")])
    async def write() -> None: ...

    outer.app.mount("/inner", inner.app)
    answer = await outer.put("/inner/write")
    assert [name for name, _ in answer.raw].count(b"cacheinval-purge") == 1
    assert outer.cache.statistics().purges == {"published": 1}
    assert inner.cache.statistics().purges == {}


async def test_lifespan_state_and_purges_of_a_running_app() -> None:
    """Purges made by the app's own lifespan are made too, before the first request."""
    cache = HTTPCache()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        assert (await cache.invalidate("price")).seq == 1
        yield
        assert (await cache.invalidate("price")).seq == 2

    app = FastAPI(lifespan=lifespan)
    app.add_middleware(CacheMiddleware, cache=cache)
    messages: asyncio.Queue[Any] = asyncio.Queue()
    started = asyncio.Event()

    async def send(message: Any) -> None:
        assert message["type"] in ("lifespan.startup.complete", "lifespan.shutdown.complete")
        started.set()

    life = asyncio.create_task(app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, messages.get, send))
    await messages.put({"type": "lifespan.startup"})
    await started.wait()
    await messages.put({"type": "lifespan.shutdown"})
    await life
    assert cache.statistics().applied == 2
