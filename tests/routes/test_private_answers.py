"""The answer of a route with a partition or a guard never leaves so that a shared cache downstream would keep it."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Annotated, Any

import pytest
from fastapi import Depends, Header, HTTPException, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from fastapi_cacheinval import cached
from fastapi_cacheinval.core.private_answers import made_private
from fastapi_cacheinval.grammar.cache_control import parse
from tests.helpers.http import Answer, Shop

pytestmark = pytest.mark.anyio

PUBLIC = "public, max-age=60, s-maxage=600, immutable"


def may_be_shared(answer: Answer) -> bool:
    """Whether any cache downstream could take the answer for one that it may keep for all."""
    said = parse(answer.fields("cache-control"))
    lines = b",".join(answer.fields("cache-control")).lower()
    targeted = [name for name, _ in answer.raw if name.endswith((b"cdn-cache-control", b"surrogate-control"))]
    kept_out = said.private is True or said.no_store
    return not kept_out or b"public" in lines or b"s-maxage" in lines or bool(targeted)


async def tenant(x_tenant: Annotated[str, Header()]) -> str:
    """Who asks."""
    if x_tenant == "nobody":
        raise HTTPException(401)
    return x_tenant


class House:
    """An app with one route per cover, and somebody who says that everything is public."""

    def __init__(self, who: str, *, headers: bool = False, **policy: Any) -> None:
        self.shop = Shop(middleware={"honour_headers": headers})
        self.says = {"cache-control": PUBLIC, "cdn-cache-control": "max-age=60", "surrogate-control": "max-age=60"}
        self.fails = False
        covers: dict[str, Any] = {"partition": {"partition_by": tenant}, "guard": {"guarded_by": tenant}}
        shape: dict[str, Any] = {"ttl": 60, "jitter": 0, "early_refresh": 0, "tags": ["it"]}
        for name, cover in covers.items():
            control: dict[str, Any] = {"cache_control": PUBLIC} if who == "policy" else {}
            depends = cached(**shape, **cover, **control, **policy)
            self._add(name, depends, who)
        if who == "middleware":

            @self.shop.app.middleware("http")
            async def public(request: Request, call_next: Any) -> Any:
                response = await call_next(request)
                response.headers.update(self.says)
                return response

            self.shop.app.user_middleware.reverse()

    def _add(self, name: str, depends: Any, who: str) -> None:
        said = self.says if who == "handler" else {}

        @self.shop.app.get(f"/{name}", dependencies=[depends])
        async def read() -> Response:
            if self.fails:
                raise HTTPException(503)
            return JSONResponse({"page": self.shop.count()}, headers=said)

        @self.shop.app.get(f"/{name}/stream", dependencies=[depends])
        async def stream() -> Response:
            async def pieces() -> AsyncIterator[bytes]:
                yield b"one"
                yield b"two"

            return StreamingResponse(pieces(), headers=said)

        @self.shop.app.get(f"/{name}/cookie", dependencies=[depends])
        async def cookie() -> Response:
            return Response(b"it", headers={**said, "set-cookie": "a=b"})

        @self.shop.app.get(f"/{name}/huge", dependencies=[depends])
        async def huge() -> Response:
            return Response(bytes(2 * 1024 * 1024), headers=said)

    async def get(self, path: str, **more: Any) -> Answer:
        """One GET of a known tenant."""
        headers = {"x-tenant": "a", **more.pop("headers", {})}
        return await self.shop.ask(path, headers=headers, **more)


COVERS = pytest.mark.parametrize("cover", ["partition", "guard"])
WHO = pytest.mark.parametrize("who", ["handler", "middleware", "policy"])
MODES = pytest.mark.parametrize("headers", [False, True], ids=["policies", "headers"])


@COVERS
@WHO
@MODES
async def test_no_answer_of_a_covered_route_may_be_shared_downstream(cover: str, who: str, headers: bool) -> None:
    """Miss, hit, 304, HEAD, stale, and a stand-in for an error; `max-age` stays for the browser."""
    house = House(who, headers=headers, stale_while_revalidate=600, stale_if_error=6000)
    answers = [await house.get(f"/{cover}")]
    answers.append(await house.get(f"/{cover}"))
    answers.append(await house.get(f"/{cover}", headers={"if-none-match": answers[0].headers["etag"]}))
    answers.append(await house.get(f"/{cover}", method="HEAD"))
    house.shop.clock.tick(70)
    answers.append(await house.get(f"/{cover}"))
    await house.shop.refreshed()
    house.fails = True
    house.shop.clock.tick(1000)
    answers.append(await house.get(f"/{cover}"))
    assert [answer.status_code for answer in answers] == [200, 200, 304, 200, 200, 200]
    assert not any(map(may_be_shared, answers))
    assert all("max-age" in answer.headers["cache-control"] for answer in answers)


@COVERS
@WHO
@MODES
@pytest.mark.parametrize("what", ["stream", "cookie", "huge"])
async def test_what_is_streamed_or_not_stored_may_not_be_shared_either(
    cover: str, who: str, headers: bool, what: str
) -> None:
    """Whether the cache keeps an answer says nothing of whether others may."""
    house = House(who, headers=headers)
    for _ in range(2):
        answer = await house.get(f"/{cover}/{what}")
        if who != "policy" or what == "stream":
            # The policy's own word goes with what is kept alone.
            assert not may_be_shared(answer)
        assert "public" not in answer.headers.get("cache-control", "")


@COVERS
@MODES
async def test_what_a_guard_refuses_and_what_is_bypassed_may_not_be_shared(cover: str, headers: bool) -> None:
    """A 401 of the cover, a 422, a 503 of the handler, and everything with the cache switched off."""
    house = House("middleware", headers=headers)
    refused = await house.get(f"/{cover}", headers={"x-tenant": "nobody"})
    unnamed = await house.shop.ask(f"/{cover}")
    house.fails = True
    failed = await house.get(f"/{cover}")
    house.fails = False
    house.shop.cache.enabled = False
    off = await house.get(f"/{cover}")
    assert [each.status_code for each in (refused, unnamed, failed, off)] == [401, 422, 503, 200]
    assert not any(map(may_be_shared, (refused, unnamed, failed, off)))


async def test_waiters_get_a_private_answer_too() -> None:
    """Collapsed requests leave by the same door."""
    house = House("middleware")
    calls = [house.shop.call("/guard", headers={"x-tenant": name}) for name in "abc"]
    answers = [await call.answer() for call in calls]
    assert not any(map(may_be_shared, answers))
    assert house.shop.calls == 1


@COVERS
@MODES
@pytest.mark.parametrize("others", [False, True])
async def test_a_policy_that_is_switched_off_still_says_whose_answers_they_are(
    cover: str, headers: bool, others: bool
) -> None:
    """`ttl=0` beside a partition or a guard: nothing is stored, and nothing leaves as public."""
    shop = Shop(middleware={"honour_headers": headers})
    named: dict[str, Any] = {"partition_by": tenant} if cover == "partition" else {"guarded_by": tenant}

    @shop.app.get("/off", dependencies=[cached(ttl=0, **named)])
    async def off(x_tenant: Annotated[str, Header()]) -> Response:
        fields = {"cache-control": PUBLIC, "cdn-cache-control": "max-age=60"}
        return Response(x_tenant.encode(), headers=fields)

    if others:

        @shop.app.get("/on", dependencies=[cached(ttl=60)])
        async def on() -> str:
            return "it"

    for _ in range(2):
        for name in ("a", "b"):
            answer = await shop.ask("/off", headers={"x-tenant": name})
            assert answer.body == name.encode()
            assert not may_be_shared(answer)


async def test_routes_for_all_say_what_they_like() -> None:
    """Proved shared, declared shared, not cached: nothing of theirs is touched."""
    shop = Shop()
    for path, depends in (("/shared", [cached(ttl=60)]), ("/declared", [cached(ttl=60, shared=True)]), ("/plain", [])):

        @shop.app.get(path, dependencies=depends)
        async def read() -> Response:
            return Response(b"it", headers={"cache-control": PUBLIC, "cdn-cache-control": "max-age=9"})

    for path in ("/shared", "/declared", "/plain"):
        for _ in range(2):
            answer = await shop.ask(path)
            assert answer.fields("cache-control") == [PUBLIC.encode()]
            assert answer.fields("cdn-cache-control") == [b"max-age=9"]


async def test_it_is_logged_once_for_each_route(caplog: pytest.LogCaptureFixture) -> None:
    """The line names the route, what was said, and what to write."""
    house = House("middleware")
    with caplog.at_level(logging.WARNING, "fastapi_cacheinval"):
        for _ in range(3):
            await house.get("/partition")
            await house.get("/guard")
    lines = [record.getMessage() for record in caplog.records if "sent as private" in record.getMessage()]
    assert len(lines) == 2
    assert all("s-maxage=600" in line and "Cache-Control: private" in line for line in lines)
    assert {line.split()[0] for line in lines} == {"/partition", "/guard"}


async def test_a_dependency_may_be_a_cover_at_any_place() -> None:
    """A guard that is named as `Depends`, on a router's include."""
    shop = Shop()

    @shop.app.get("/", dependencies=[cached(ttl=60, guarded_by=Depends(tenant), cache_control="max-age=5")])
    async def read() -> str:
        return "it"

    answer = await shop.ask(headers={"x-tenant": "a"})
    assert answer.fields("cache-control") == [b"private, max-age=5"]


@pytest.mark.parametrize(
    ("fields", "made"),
    [
        ([("cache-control", "public")], [("cache-control", "private")]),
        ([("cache-control", "PUBLIC , Max-Age=60")], [("cache-control", "private, Max-Age=60")]),
        ([("cache-control", "max-age=60")], [("cache-control", "private, max-age=60")]),
        ([("cache-control", "no-cache")], [("cache-control", "private, no-cache")]),
        ([("cache-control", "")], [("cache-control", "private")]),
        ([("cache-control", "private, s-maxage=60")], [("cache-control", "private")]),
        ([("cache-control", "no-store, public")], [("cache-control", "private, no-store")]),
        ([("cache-control", 'private="x-user", max-age=1')], [("cache-control", "private, max-age=1")]),
        ([("cache-control", 's-maxage="60"'), ("x", "1"), ("cache-control", "max-age=1")],
         [("cache-control", "private, max-age=1"), ("x", "1")]),
        ([("cache-control", 'ext="public", private')], None),
        ([("cache-control", "private, max-age=60, immutable")], None),
        ([("cache-control", "no-store")], None),
        ([("cache-control", "private; a")], [("cache-control", "private, private; a")]),
        ([("cache-control", "no-store no-cache")], [("cache-control", "private, no-store no-cache")]),
        ([("cache-control", "private=true")], [("cache-control", "private")]),
        ([("x", "1")], None),
        ([("expires", "tomorrow")], [("expires", "tomorrow"), ("cache-control", "private")]),
        ([("cdn-cache-control", "max-age=1")], [("cache-control", "private")]),
        ([("cache-control", "private"), ("vercel-cdn-cache-control", "max-age=1")], [("cache-control", "private")]),
        ([("cache-control", "private"), ("x-accel-expires", "60")], [("cache-control", "private")]),
        ([("cache-control", "private"), ("x-accel-expires", "0")], None),
        ([("cache-control", "private"), ("cdn-cache-control", "no-store")], None),
        ([("cache-control", "private"), ("surrogate-control", "max-age=60")], [("cache-control", "private")]),
        ([("cache-control", "private"), ("cdn-cache-control", "No-Store , max-age=0")], None),
        ([("cache-control", "private"), ("edge-control", "no-cache")], None),
        ([("cache-control", "private"), ("x-dns-prefetch-control", "off")], None),
        *(
            ([("cache-control", "private"), (name, value)], [("cache-control", "private")])
            for name, value in (
                ("cdn-cache-control", 'max-age=600, no-cache="set-cookie"'),
                ("cdn-cache-control", 'no-cache="set-cookie"'),
                ("cdn-cache-control", 'max-age=600, private="x-user"'),
                ("cdn-cache-control", 'max-age=600, foo="no-store"'),
                ("cdn-cache-control", 'foo="a, no-store, b"'),
                ("cdn-cache-control", "max-age=600, no-store"),
                ("cdn-cache-control", "no-store=0"),
                ("cdn-cache-control", "must-revalidate"),
                ("cdn-cache-control", ""),
                ("edge-control", "!no-store, max-age=1d"),
                ("edge-control", "!no-store"),
                ("surrogate-control", "max-age=600, no-store-remote"),
                ("surrogate-control", "no-store-remote"),
                ("surrogate-control", "max-age=600, no-store;other"),
                ("surrogate-control", "no-store;other"),
                ("x-litespeed-cache-control", "public, max-age=600"),
                ("netlify-cdn-cache-control", "max-age=600"),
                ("some-new-cache-control", "max-age=600"),
                ("some-new-control", "max-age=600"),
            )
        ),
    ],
)  # fmt: skip
def test_what_becomes_of_the_fields(fields: list[tuple[str, str]], made: list[tuple[str, str]] | None) -> None:
    """What shares goes, `private` comes, the browser's part stays, and what is private already stays as it is."""
    given = [(name.encode(), value.encode()) for name, value in fields]
    expected = None if made is None else [(name.encode(), value.encode()) for name, value in made]
    assert made_private(given) == expected
    if expected is not None:
        assert made_private(expected) is None
