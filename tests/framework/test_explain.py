"""`cache.explain()`: what a request would get that is not made, and that nothing comes of asking."""

# No postponed annotations: the handlers name classes and callables of their own test.

from typing import Annotated, Any

import pytest
from fastapi import Depends, Header, HTTPException, Request

from fastapi_cacheinval import (
    CacheNotRunning,
    ConfigurationError,
    Explanation,
    HTTPCache,
    cached,
    invalidates,
    invalidates_nothing,
)
from tests.helpers.http import Call, Shop, lifespan_of, scope_of, until

pytestmark = pytest.mark.anyio

HOST = "http://test"


def tenant(x_tenant: Annotated[str, Header()]) -> str:
    return x_tenant


def admin(authorization: Annotated[str, Header()]) -> None:
    if authorization != "root":
        raise HTTPException(401)


def shop_of(**options: Any) -> Shop:
    """A product, a page by language, one per tenant, a guarded one, and mutations."""
    shop = Shop(**options)

    @shop.app.get(
        "/products/{number}", dependencies=[cached(ttl=60, tags=["product:{number}"], stale_while_revalidate=30)]
    )
    async def product(number: int, q: str = "", token: str = "") -> str:
        return f"{number} {shop.count()}"

    @shop.app.get("/greeting", dependencies=[cached(ttl=60)])
    async def greeting(accept_language: Annotated[str, Header()] = "en") -> str:
        return accept_language

    @shop.app.get("/mine", dependencies=[cached(ttl=60, partition_by=tenant, tags=["mine"])])
    async def mine(name: Annotated[str, Depends(tenant)]) -> str:
        return name

    @shop.app.get("/report", dependencies=[cached(ttl=60, guarded_by=admin)])
    async def report() -> str:
        return ""

    @shop.app.put("/products/{number}", dependencies=[invalidates("product:{number}")])
    async def write(number: int) -> None: ...

    @shop.app.post("/search", dependencies=[invalidates_nothing()])
    async def search() -> None: ...

    @shop.app.get("/plain")
    async def plain() -> None: ...

    @shop.app.get("/off", dependencies=[cached(ttl=0)])
    async def switched_off() -> None: ...

    return shop


async def explained(shop: Shop, path: str, **more: Any) -> Explanation:
    return await shop.cache.explain(path, base_url=HOST, **more)


async def test_before_the_first_request_it_is_a_miss() -> None:
    """Route, verdict, the parts of the key, the tags that it will have, and that nothing is stored."""
    shop = shop_of()
    async with lifespan_of(shop.app):
        told = await explained(shop, "/products/42?q=x&token=very-secret")
    assert (told.result, told.reason, told.cache_status) == ("miss", "uri-miss", "cacheinval; fwd=uri-miss")
    assert (told.route, told.shared_by, told.lookup) == ("GET /products/{number}", "everyone", "front")
    assert told.key_parts == ("scheme", "host", "path", "query q", "query token")
    assert told.tags == ("product:42",)
    assert (told.stored, told.last_purge) == ((), None)
    assert told.path == "/products/42?q=x&token=***"
    assert "very-secret" not in repr(told)


async def test_it_says_what_the_next_request_then_gets() -> None:
    """At each step of a response's life the words are those of the request that follows."""
    shop = shop_of()
    async with lifespan_of(shop.app):
        for seconds, result in ((0, "miss"), (0, "hit"), (70, "stale"), (0, "hit"), (500, "miss")):
            shop.clock.tick(seconds)
            told = await explained(shop, "/products/42")
            answer = await shop.ask("/products/42")
            await until(lambda: not shop.cache.statistics().refreshing, "the refresh to end")
            assert told.result == result
            field = answer.headers["cache-status"].replace("; ttl=60; stored", "").replace("; ttl=54; stored", "")
            assert field.partition("; ttl")[0] == told.cache_status.partition("; ttl")[0]


async def test_what_is_stored_is_told_with_its_age_and_its_tags() -> None:
    """Since when, how long still, how large, under which digest; the digest is the one in the feed."""
    shop = shop_of()
    keys: list[str] = []
    async with lifespan_of(shop.app):
        unsubscribe = shop.cache.subscribe(lambda event: keys.append(getattr(event, "key", "")))
        await shop.ask("/products/42")
        unsubscribe()
        shop.clock.tick(10)
        told = await explained(shop, "/products/42")
    (copy,) = told.stored
    assert (copy.tier, copy.status, copy.age, copy.usable) == ("l1", 200, 10, True)
    assert copy.since == pytest.approx(shop.clock.wall() - 10)
    assert 40 < copy.ttl <= 50
    assert copy.size_bytes == len(b'"42 1"')
    assert (told.key, copy.key) == (keys[0], keys[0])
    assert copy.tags == told.tags == ("product:42",)


async def test_a_purge_is_told_with_who_made_it() -> None:
    """The copy is there and not usable, and the purge names the mutation."""
    shop = shop_of()
    async with lifespan_of(shop.app):
        await shop.ask("/products/42")
        await shop.ask("/products/42", method="PUT")
        told = await explained(shop, "/products/42")
        other = await explained(shop, "/products/43")
    assert (told.result, told.reason) == ("miss", "uri-miss")
    assert [copy.usable for copy in told.stored] == [False]
    assert told.last_purge is not None
    assert (told.last_purge.by, told.last_purge.seq) == ("PUT /products/{number}", 1)
    assert "purged" in told.because
    assert other.last_purge is None


async def test_asking_changes_nothing() -> None:
    """No handler, no dependency, no count, no lock, no use of what is stored, nothing let go of."""
    shop = shop_of()
    async with lifespan_of(shop.app):
        await shop.ask("/products/42")
        await shop.ask("/products/43")
        await shop.ask("/products/43", method="PUT")
        store = shop.cache._core.engine.store
        nodes = {key: (node.uses, node.value.verified) for key, node in store._nodes.items()}  # type: ignore[attr-defined]
        before = shop.cache.statistics()
        for path in ("/products/42", "/products/43", "/products/44", "/mine", "/report", "/plain", "/nowhere"):
            for method in ("GET", "HEAD", "PUT"):
                await explained(shop, path, method=method)
        assert shop.cache.statistics() == before
        assert {key: (node.uses, node.value.verified) for key, node in store._nodes.items()} == nodes  # type: ignore[attr-defined]
        assert shop.calls == 2


async def test_variants_are_told_apart() -> None:
    """Another language than what is stored is a vary-miss; the stored one is a hit, and names what selects it."""
    shop = shop_of()
    async with lifespan_of(shop.app):
        await shop.ask("/greeting", headers={"accept-language": "de"})
        german = await explained(shop, "/greeting", headers={"Accept-Language": "de"})
        french = await explained(shop, "/greeting", headers={"Accept-Language": "fr"})
    assert (german.result, german.stored[0].variant) == ("hit", ("accept-language",))
    assert (french.result, french.reason, french.stored) == ("miss", "vary-miss", ())
    assert german.key != french.key


async def test_a_partition_needs_its_caller() -> None:
    """Without the caller the answer says what is not known; with the value it is found, and never told."""
    shop = shop_of()
    async with lifespan_of(shop.app):
        await shop.ask("/mine", headers={"x-tenant": "acme-corp"})
        unknown = await explained(shop, "/mine")
        known = await explained(shop, "/mine", partition=("acme-corp",))
        other = await explained(shop, "/mine", partition=("other",))
        odd = await explained(shop, "/mine", partition=(3.5,))
        with pytest.raises(ConfigurationError, match="tenant"):
            await explained(shop, "/mine", partition=("acme-corp", "more"))
        with pytest.raises(ConfigurationError, match="tuple"):
            await explained(shop, "/mine", partition="acme-corp")
    assert (unknown.result, unknown.unknown) == ("unknown", ("what tenant gives for this caller",))
    assert unknown.key_parts[-1] == "partition tenant"
    assert (known.result, other.result) == ("hit", "miss")
    assert (odd.result, odd.detail) == ("bypass", "partition")
    assert "acme-corp" not in repr((unknown, known))


async def test_a_guard_is_named() -> None:
    """Its word is not known, and the rest is."""
    shop = shop_of()
    async with lifespan_of(shop.app):
        told = await explained(shop, "/report")
    assert (told.result, told.shared_by, told.lookup) == ("miss", "guarded", "route")
    assert told.unknown[0].startswith("whether admin lets this caller pass")


async def test_what_is_not_looked_up_says_why() -> None:
    """No route, a route without a policy or with ttl=0, other methods, the kill switch, an invalid parameter."""
    shop = shop_of()
    async with lifespan_of(shop.app):
        nowhere = await explained(shop, "/nowhere")
        plain = await explained(shop, "/plain")
        switched_off = await explained(shop, "/off")
        write = await explained(shop, "/products/42", method="put")
        search = await explained(shop, "/search", method="POST")
        delete = await explained(shop, "/products/42", method="DELETE")
        invalid = await explained(shop, "/products/none")
        head = await explained(shop, "/products/42", method="HEAD")
        shop.cache.enabled = False
        off = await explained(shop, "/products/42")
    assert (nowhere.route, nowhere.result) == (None, "bypass")
    assert "No route" in nowhere.because
    assert (plain.route, plain.result) == ("GET /plain", "bypass")
    assert "declares no cached()" in plain.because
    assert (switched_off.route, switched_off.result) == ("GET /off", "bypass")
    assert "Its cached() is switched off (ttl=0)" in switched_off.because
    assert (write.route, write.reason, write.tags) == ("PUT /products/{number}", "method", ("product:{number}",))
    assert "purge nothing" in search.because
    assert "No route" in delete.because
    assert (invalid.result, invalid.detail) == ("bypass", "invalid")
    assert (head.method, head.result) == ("HEAD", "miss")
    assert (off.result, off.detail) == ("bypass", "disabled")


@pytest.mark.parametrize(
    ("honour_headers", "path_purges"), [(False, True), (True, False), (True, True), (False, False)]
)
async def test_a_mutation_says_whether_it_purges_paths(honour_headers: bool, path_purges: bool) -> None:
    """As the setting says; by headers it purges its target in any case."""
    shop = Shop(middleware={"honour_headers": honour_headers}, path_purges=path_purges)
    shop.app.put("/it")(lambda: None)
    async with lifespan_of(shop.app):
        told = await explained(shop, "/it", method="PUT")
    assert ("the paths that it names" in told.because) is (honour_headers or path_purges)


async def test_another_forward_under_way_is_told() -> None:
    """While the app answers the same key, one more request would wait for that."""
    shop = Shop()
    asked: list[Explanation] = []

    @shop.app.get("/slow", dependencies=[cached(ttl=60)])
    async def slow() -> str:
        asked.append(await explained(shop, "/slow"))
        return ""

    async with lifespan_of(shop.app):
        await Call(shop.app, scope_of("/slow")).answer()
    assert (asked[0].result, asked[0].cache_status) == ("collapsed", "cacheinval; fwd=uri-miss; collapsed")


async def test_a_request_at_hand_is_explained() -> None:
    """From inside a handler, with the request's own host and fields."""
    shop = shop_of()
    told: list[Explanation] = []

    @shop.app.get("/why")
    async def why(request: Request) -> None:
        told.append(await shop.cache.explain(request))

    async with lifespan_of(shop.app):
        await shop.ask("/why")
    assert (told[0].route, told[0].result) == ("GET /why", "bypass")


async def test_by_headers_what_is_stored_is_found() -> None:
    """Under `honour_headers` a page of any route is found by its whole URL."""
    shop = Shop(middleware={"honour_headers": True})

    @shop.app.get("/page")
    async def page() -> Any:
        from fastapi import Response

        return Response("page", headers={"cache-control": "max-age=60"})

    async with lifespan_of(shop.app):
        before = await explained(shop, "/page?a=1")
        await shop.ask("/page?a=1")
        after, other = await explained(shop, "/page?a=1"), await explained(shop, "/page?a=2")
    assert [each.result for each in (before, after, other)] == ["miss", "hit", "miss"]


async def test_by_headers_a_query_that_does_not_count_is_another_spelling() -> None:
    """With `No-Vary-Search` (what is stored answers each spelling) a page that is not stored is a plain miss."""
    shop = Shop(middleware={"honour_headers": True})

    @shop.app.get("/page")
    async def page(a: str) -> Any:
        from fastapi import Response

        return Response(a, headers={"cache-control": "max-age=60", "no-vary-search": 'params=("utm")'})

    async with lifespan_of(shop.app):
        await shop.ask("/page?a=1&utm=1")
        same, other = await explained(shop, "/page?a=1&utm=2"), await explained(shop, "/page?a=2&utm=2")
        assert (await shop.ask("/page?a=2&utm=2")).headers["cache-status"].startswith(other.cache_status)
    assert (same.result, other.result, other.reason) == ("hit", "miss", "uri-miss")


@pytest.mark.parametrize(
    "url", ["", "//", "ftp://a/b", "http://", "http://[", "page", "http://me:pass@test/", "/\udc80", 42, None, b"/a"]
)
async def test_what_is_no_url_is_refused_in_words(url: Any) -> None:
    """A `ConfigurationError`, and nothing from deep inside."""
    shop = shop_of()
    async with lifespan_of(shop.app):
        with pytest.raises(ConfigurationError):
            await shop.cache.explain(url, base_url=HOST)


@pytest.mark.parametrize(
    "path",
    [
        "/" + "a" * 100_000,
        "/products/" + "%2F" * 5000,
        "/%00%0a",
        "/products/42?" + "a=1&" * 5000,
        "/products/../x",
        "/é",
    ],
)
async def test_hostile_paths_have_an_answer(path: str) -> None:
    """Long, encoded and odd ones; what is shown of them is bounded and one line."""
    shop = shop_of()
    async with lifespan_of(shop.app):
        told = await explained(shop, path)
    assert len(told.path) < 2100
    assert told.path.isprintable()


@pytest.mark.parametrize("method", ["", "GET ", "G\nET", None, 3])
async def test_what_is_no_method_is_refused(method: Any) -> None:
    """Before anything is looked at."""
    shop = shop_of()
    async with lifespan_of(shop.app):
        with pytest.raises(ConfigurationError, match="method"):
            await explained(shop, "/plain", method=method)


async def test_without_a_started_app_it_says_so() -> None:
    """The routes are not known yet."""
    with pytest.raises(CacheNotRunning, match="started"):
        await HTTPCache().explain("/a", base_url=HOST)
    shop = shop_of()
    async with lifespan_of(shop.app):
        with pytest.raises(ConfigurationError, match="base_url"):
            await shop.cache.explain("/a")
        with pytest.raises(ConfigurationError, match="header"):
            await explained(shop, "/plain", headers={"a b": "c"})
