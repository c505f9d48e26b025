"""Two releases over one Redis that differ in the policy of a route: each answers by what its own policy says."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated, Any

import pytest
from fastapi import FastAPI, Header, Request, Response
from fastapi.routing import APIRoute
from starlette.routing import Mount

from fastapi_cacheinval import CacheMiddleware, HTTPCache, ResponseToStore, cached, invalidates
from tests.helpers.fleet import eventually, filled, found, replicas
from tests.helpers.http import Answer, ask
from tests.servers import Valkey

pytestmark = pytest.mark.anyio

Make = Callable[[HTTPCache], Any]


class Shop:
    """What all releases read."""

    def __init__(self) -> None:
        self.price = 30

    def release(self, *, reads_country: bool = False, **policy: Any) -> Make:
        """A release whose page has this policy."""

        def make(cache: HTTPCache) -> Any:
            app = FastAPI()
            app.add_middleware(CacheMiddleware, cache=cache)

            def declared() -> Any:
                async def page(item_id: int, x_country: Annotated[str, Header()] = "all") -> str:
                    return f"{self.price} for {x_country}"

                return page

            def raw() -> Any:
                async def page(item_id: int, request: Request) -> str:
                    return f"{self.price} for {request.headers.get('x-country', 'all')}"

                return page

            page = declared() if reads_country else raw()
            page.__qualname__ = "page"
            own = {"ttl": 600, "jitter": 0, "early_refresh": 0, "request_is_shared": True, **policy}
            app.add_api_route("/prices/{item_id}", page, dependencies=[cached(**own)])

            @app.post("/discounts/{item_id}", dependencies=[invalidates("price:{item_id}", paths=False)])
            async def discount(item_id: int) -> None:
                self.price = 20

            return app

        return make


def text(answer: Answer) -> str:
    return answer.body.decode().strip('"')


async def get(app: Any, path: str = "/prices/1", **headers: str) -> Answer:
    return await ask(
        app, path, host="shop.test", headers={name.replace("_", "-"): text for name, text in headers.items()}
    )


async def test_a_release_that_adds_a_tag_obeys_its_purges_of_it(redis_server: Valkey) -> None:
    """What the last release stored, and goes on storing while it is rolled out, has no such tag."""
    shop = Shop()
    old = shop.release(tags=["item:{item_id}"])
    new = shop.release(tags=["item:{item_id}", "price:{item_id}"])
    async with replicas(redis_server, old, new, new) as ((before, cache), (one, own), (two, _)):
        await filled(before, cache, "/prices/1")
        await filled(one, own, "/prices/1")
        assert await found(two, "/prices/1")
        purge = await ask(one, "/discounts/1", method="POST", host="shop.test")
        assert purge.headers["cacheinval-purge"] == "done"
        assert text(await get(one)) == "20 for all"
        # The last release has not declared it, and answers as it did; nothing of that comes here.
        assert text(await get(before)) == "30 for all"
        assert text(await get(one)) == text(await get(two)) == "20 for all"


@pytest.mark.parametrize("reads_country", [False, True])
async def test_a_release_that_adds_a_field_to_vary_hands_out_nothing_made_without_it(
    redis_server: Valkey, reads_country: bool
) -> None:
    """What the last release stored was made for one value, and says nothing of it; the same with a `Header()`."""
    shop = Shop()
    more = {} if reads_country else {"vary": ["x-country"]}
    makes = shop.release(), shop.release(reads_country=reads_country, **more)
    async with replicas(redis_server, *makes, *makes) as ((old, cache), (new, own), (old_2, _), (new_2, _)):
        await filled(old, cache, "/prices/1", headers={"x-country": "de"})
        assert text(await get(new, x_country="us")) == "30 for us"
        await filled(new, own, "/prices/1", headers={"x-country": "fr"})
        for app in (new, new_2):
            assert [text(await get(app, x_country=each)) for each in ("de", "us", "fr")] == [
                "30 for de",
                "30 for us",
                "30 for fr",
            ]
        # The other way round, that it is the same for all is the old release's own word.
        assert text(await get(old_2, x_country="us")) == "30 for de"


def nothing(response: ResponseToStore) -> bool:
    return False


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"ttl": 3600}, {"ttl": 1}),
        ({"ttl": 3600, "statuses": {200: 3600}}, {"ttl": 3600, "statuses": {200: 1}}),
        ({"ttl": 1, "stale_while_revalidate": 1000}, {"ttl": 1}),
        ({"ttl": 3600}, {"ttl": 3600, "should_store": nothing}),
        ({"ttl": 3600}, {"ttl": 3600, "statuses": {404}}),
    ],
)
async def test_a_release_that_keeps_less_is_obeyed_at_once(
    redis_server: Valkey, old: dict[str, Any], new: dict[str, Any]
) -> None:
    """A shorter lifetime, no stale answers, or nothing stored: that holds for what the last release has stored too."""
    shop = Shop()
    async with replicas(redis_server, shop.release(**old), shop.release(**new)) as ((before, cache), (app, _)):
        await filled(before, cache, "/prices/1")
        shop.price = 20
        assert text(await get(app)) == "20 for all"


# -- what stands around a route ----------------------------------------------------------------------


class Envelope(APIRoute):
    """It puts what the handler answers into an envelope."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        original = super().get_route_handler()

        async def handler(request: Request) -> Response:
            answer = await original(request)
            return Response(b'{"data":' + bytes(answer.body) + b"}", media_type="application/json")

        return handler


class Wrapped(APIRoute):
    """The same, around its app."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.app = Enveloping(self.app)


class Enveloping:
    """The same, as an ASGI app around another."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def sending(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [pair for pair in message["headers"] if pair[0] != b"content-length"]
            else:
                message["body"] = b'{"data":' + message["body"] + b"}"
            await send(message)

        await self.app(scope, receive, sending)


class EnvelopingMount(Mount):
    """The same, around a mounted app."""

    async def handle(self, scope: Any, receive: Any, send: Any) -> None:
        await Enveloping(super().handle)(scope, receive, send)


async def one() -> int:
    return 1


def release(kind: Any, **policy: Any) -> Make:
    """A release whose page stands inside of such a layer, or of none."""

    def make(cache: HTTPCache) -> Any:
        app = FastAPI()
        app.add_middleware(CacheMiddleware, cache=cache)
        if isinstance(kind, type) and issubclass(kind, Mount):
            inner = FastAPI()
            inner.add_api_route("/page", one, dependencies=[cached(ttl=60, **policy)])
            app.router.routes.append(kind("/inner", inner))
        else:
            app.router.route_class = kind
            app.add_api_route("/inner/page", one, dependencies=[cached(ttl=60, **policy)])
        return app

    return make


@pytest.mark.parametrize("kind", [Envelope, Wrapped, EnvelopingMount])
@pytest.mark.parametrize("order", ["taken away", "added"])
async def test_what_is_stored_around_a_layer_is_not_handed_through_it_again(
    redis_server: Valkey, kind: Any, order: str
) -> None:
    """A release takes `shared=True` away from a route behind a layer of its own, or adds it; both answer the same."""
    makes = [release(kind, shared=True), release(kind)]
    if order == "added":
        makes.reverse()
    async with replicas(redis_server, *makes) as ((before, cache), (app, _)):
        first = await get(before, "/inner/page")
        await eventually(lambda: cache.statistics().l2.get("write", 0), "a write to L2")
        for answer in (
            first,
            await get(app, "/inner/page"),
            await get(app, "/inner/page"),
            await get(before, "/inner/page"),
        ):
            assert answer.body == b'{"data":1}'


@pytest.mark.parametrize("kind", [Envelope, Wrapped])
async def test_a_layer_of_a_route_that_a_release_adds_is_in_what_it_answers(redis_server: Valkey, kind: Any) -> None:
    """With `shared=True` a hit skips it, so that what was stored without it is not the new release's."""
    makes = release(APIRoute, shared=True), release(kind, shared=True)
    async with replicas(redis_server, *makes, *makes) as ((old, cache), (new, own), (old_2, _), (new_2, _)):
        await filled(old, cache, "/inner/page")
        await filled(new, own, "/inner/page")
        assert [(await get(app, "/inner/page")).body for app in (old_2, new_2)] == [b"1", b'{"data":1}']
