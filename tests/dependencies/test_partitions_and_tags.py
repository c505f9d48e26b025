"""Partitions by every allowed type, and tags from templates, dependencies, handlers and helpers."""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator
from typing import Annotated, Any
from uuid import UUID

import pytest
from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import StreamingResponse

from fastapi_cacheinval import CacheMiddleware, CacheTags, HTTPCache, add_tags, cached, invalidates
from fastapi_cacheinval.testing import assert_hit, assert_miss, capture_invalidations
from tests.helpers.life import Counted, client_of

pytestmark = pytest.mark.anyio


class Plan(enum.Enum):
    FREE = 1
    PAID = 2


class Rights(enum.Flag):
    READ = 1
    WRITE = 2


PRINCIPALS: dict[str, object] = {
    "int": 1,
    "bool": True,
    "str": "1",
    "bytes": b"1",
    "none": None,
    "uuid": UUID(int=1),
    "enum": Plan.FREE,
    "paid": Plan.PAID,
    "no-rights": Rights(0),
    "all-rights": Rights.READ | Rights.WRITE,
    "tuple": (1,),
    "pair": (1, "1"),
    "nested": ((1,), None),
    "empty": (),
}


async def principal(request: Request) -> object:
    """Whoever the header names."""
    return PRINCIPALS.get(request.headers["x-who"], object())


async def brand(tags: CacheTags) -> None:
    """A dependency that tags."""
    tags.add("from-dependency")


async def region(request: Request) -> str:
    """A second thing that tells callers apart."""
    return request.headers.get("x-region", "")


def site(cache: HTTPCache | None = None, **options: Any) -> tuple[FastAPI, Counted]:
    """An app with a cache."""
    app = FastAPI(**options)
    app.add_middleware(CacheMiddleware, cache=cache)
    return app, Counted()


async def test_values_of_every_allowed_type_are_kept_apart() -> None:
    """1, True, "1", b"1", an Enum of 1, a tuple of 1, none and no rights at all: each has its own response, and hits it."""
    app, counted = site()

    @app.get("/mine", dependencies=[cached(ttl=60, partition_by=principal)])
    async def mine(who: Annotated[object, Depends(principal)]) -> str:
        counted()
        return repr(who)

    async with client_of(app) as client:
        for round_ in range(2):
            for name, value in PRINCIPALS.items():
                answer = await client.get("/mine", headers={"x-who": name})
                assert answer.json() == repr(value)
                (assert_hit if round_ else assert_miss)(answer)
                assert answer.headers["cache-control"] == "private, no-cache"
    assert counted.calls == len(PRINCIPALS)


async def test_a_value_without_identity_is_forwarded_and_nothing_is_stored() -> None:
    """`object()` as a principal: each such caller has an answer of the app's own, and the log names the route."""
    cache = HTTPCache()
    app, counted = site(cache)

    @app.get("/mine", dependencies=[cached(ttl=60, partition_by=principal)])
    async def mine() -> int:
        return counted()

    async with client_of(app) as client:
        for _ in range(2):
            answer = await client.get("/mine", headers={"x-who": "nobody known"})
            assert answer.status_code == 200
            assert "detail=partition" in answer.headers["cache-status"]
    assert counted.calls == 2
    assert cache.statistics().responses == 0


async def test_several_partitions_all_count() -> None:
    """A tuple of dependencies: the same first value with another second one is another response."""
    app, counted = site()

    @app.get("/mine", dependencies=[cached(ttl=60, partition_by=(principal, region))])
    async def mine() -> int:
        return counted()

    async with client_of(app) as client:
        for who, where, expected in (("int", "eu", 1), ("int", "us", 2), ("str", "eu", 3), ("int", "eu", 1)):
            answer = await client.get("/mine", headers={"x-who": who, "x-region": where})
            assert answer.json() == expected


async def test_tags_of_a_template_hold_the_validated_value() -> None:
    """`042`, `+42` and `42` are one product: each spelling is purged by the mutation of any."""
    app, counted = site()

    @app.get("/products/{product_id}", dependencies=[cached(ttl=60, tags=["product:{product_id}"])])
    async def read(product_id: int, currency: str = "eur") -> int:
        return counted()

    @app.put("/products/{product_id}", dependencies=[invalidates("product:{product_id}")])
    async def write(product_id: int) -> None:
        pass

    async with client_of(app) as client:
        for spelling in ("42", "042", "%2B42", "42?currency=usd"):
            answer = await client.get(f"/products/{spelling}")
            assert answer.headers["surrogate-key"] == "product:42"
            assert_hit(await client.get(f"/products/{spelling}"))
        assert (await client.put("/products/0042")).status_code == 200
        for spelling in ("42", "042", "%2B42", "42?currency=usd"):
            assert_miss(await client.get(f"/products/{spelling}"))
        assert (await client.get("/products/x")).status_code == 422


async def test_tags_added_on_the_way_all_count() -> None:
    """In a dependency, in the handler, in a helper without the request, in a thread, and as `Surrogate-Key`."""
    cache = HTTPCache()
    app, counted = site(cache)

    def deep_in_the_code() -> None:
        assert add_tags("from-helper")

    @app.get("/async", dependencies=[cached(ttl=60, tags=["declared"])])
    async def read(tags: CacheTags, response: Response, _brand: Annotated[None, Depends(brand)]) -> int:
        tags.add("from-handler", "two words", "")
        deep_in_the_code()
        response.headers["surrogate-key"] = "from-header other"
        return counted()

    @app.get("/thread", dependencies=[cached(ttl=60)])
    def read_in_thread(tags: CacheTags) -> int:
        tags.add("from-thread")
        deep_in_the_code()
        return counted()

    carried = {
        "/async": ["declared", "from-dependency", "from-handler", "two words", "from-helper", "from-header", "other"],
        "/thread": ["from-thread", "from-helper"],
    }
    async with client_of(app) as client:
        for path, tags in carried.items():
            for tag in tags:
                await client.get(path)
                assert_hit(await client.get(path))
                await cache.invalidate(tag)
                assert_miss(await client.get(path))
        shown = (await client.get("/async")).headers["surrogate-key"].split()
        assert set(shown) == {tag.replace(" ", "%20") for tag in carried["/async"]}
    assert cache.statistics().dropped_tags > 0
    await cache.stop()


async def test_dependencies_that_ran_before_the_policy_tag_too() -> None:
    """A dependency of the app, outside `cached()`, tags the response of the request that it ran in."""
    cache = HTTPCache()

    async def early(tags: CacheTags) -> None:
        tags.add("early")

    app, counted = site(cache, dependencies=[Depends(early)])

    @app.get("/it", dependencies=[cached(ttl=60)])
    async def read() -> int:
        return counted()

    async with client_of(app) as client:
        await client.get("/it")
        await cache.invalidate("early")
        assert_miss(await client.get("/it"))
    await cache.stop()


async def test_tags_added_while_a_stream_is_sent_count() -> None:
    """The stored copy has every tag that was known when the body was complete."""
    cache = HTTPCache()
    app, _ = site(cache)

    @app.get("/it", dependencies=[cached(ttl=60)])
    async def read(tags: CacheTags) -> Any:
        async def parts() -> AsyncIterator[bytes]:
            yield b"one"
            tags.add("late")
            yield b"two"

        return StreamingResponse(parts())

    async with client_of(app) as client:
        await client.get("/it")
        assert_hit(await client.get("/it"))
        await cache.invalidate("late")
        assert_miss(await client.get("/it"))
    await cache.stop()


async def test_tags_of_one_request_never_show_in_another() -> None:
    """Two routes one after another on one connection, and one that adds outside any request."""
    app, _ = site()

    @app.get("/{name}", dependencies=[cached(ttl=60)])
    async def read(name: str) -> bool:
        return add_tags(name)

    assert add_tags("nobody's") is False
    async with client_of(app) as client:
        for name in ("a", "b", "a", "b"):
            assert (await client.get(f"/{name}")).headers["surrogate-key"] == name
    assert add_tags("nobody's") is False


async def test_tags_on_an_unsafe_method_are_purged() -> None:
    """`CacheTags` in a mutation, and `Surrogate-Key` on its response, name what it purges, once each."""
    cache = HTTPCache()
    app, _ = site(cache)

    @app.post("/it", dependencies=[invalidates("declared")])
    async def write(tags: CacheTags, response: Response) -> None:
        tags.add("added", "declared")
        response.headers["surrogate-key"] = "named"
        add_tags("deep")

    async with client_of(app) as client:
        with capture_invalidations(cache) as purges:
            assert (await client.post("/it")).status_code == 200
    assert [sorted(purge.tags) for purge in purges] == [["added", "declared", "deep", "named"]]
    await cache.stop()


async def test_tags_without_the_middleware_are_taken_and_forgotten() -> None:
    """A handler with `CacheTags` works in an app that has no cache."""
    app = FastAPI()

    @app.get("/it")
    async def read(tags: CacheTags) -> str:
        tags.add("nobody listens")
        return "fine"

    async with client_of(app) as client:
        assert (await client.get("/it")).json() == "fine"
