"""What other response caches got wrong, one test each."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from fastapi import HTTPException, Request, Response
from fastapi.responses import FileResponse, StreamingResponse

import fastapi_cacheinval
from fastapi_cacheinval import CacheMiddleware, HTTPCache, cached, invalidates
from fastapi_cacheinval.core.keys import KeyParts, cache_key
from fastapi_cacheinval.core.tags import MAX_TAG_BYTES, normalise_tag
from fastapi_cacheinval.testing import assert_hit, assert_miss
from tests.helpers.http import Shop, ask, until

pytestmark = pytest.mark.anyio

PACKAGE = Path(fastapi_cacheinval.__file__).parent


def shop_of(make: Any, **policy: Any) -> Shop:
    """An app with one cached route that answers with what `make` gives for the number of the call."""
    shop = Shop()
    fields: dict[str, Any] = {"ttl": 60, **policy}

    @shop.app.get("/{name}", dependencies=[cached(**fields)])
    async def read(name: str) -> Response:
        return make(shop.count())

    return shop


async def test_two_set_cookie_lines_survive() -> None:
    """Fields are no dict."""

    def two(number: int) -> Response:
        response = Response(b"it")
        response.set_cookie("a", "1")
        response.set_cookie("b", "2")
        return response

    shop = shop_of(two)
    for _ in range(2):
        assert len((await shop.ask("/a")).fields("set-cookie")) == 2


async def test_an_etag_is_quoted_and_the_same_in_two_processes() -> None:
    """No hash() with its seed, no bare hexadecimal."""
    etag = (await shop_of(lambda number: Response(b"it")).ask("/a")).headers["etag"]
    assert re.fullmatch(r'"[^"\s]+"', etag)
    code = "from fastapi_cacheinval.grammar.entity_tags import make_etag; print(make_etag(b'it').decode())"
    for seed in ("1", "2"):
        there = await anyio.run_process([sys.executable, "-c", code], env={"PYTHONHASHSEED": seed, "PYTHONPATH": "."})
        assert there.stdout.decode().strip() == etag


def test_a_hostile_namespace_is_only_a_name() -> None:
    """Whatever stands in it, two namespaces never share a key, nor does one with its version."""
    names = ["a", "a:b", "a:", ":a", "a*", "{a}", "a}", '"', "]]", "a\n", "a\x00", "ä", "../a", "%61", "1:a", ""]
    keys = [cache_key(KeyParts("policy", name, version, "http", b"h", "", "/")) for name in names for version in names]
    assert len(set(keys)) == len(names) ** 2


@pytest.mark.parametrize(
    "sets", ["no-store, max-age=0", "max-age=0,NO-STORE", "  no-store  ", "max-age=9 , no-store=1"]
)
async def test_cache_control_is_parsed_not_compared(sets: str) -> None:
    """A directive counts wherever it stands in the list."""
    shop = shop_of(lambda number: Response(b"it", headers={"cache-control": sets}))
    for times in (1, 2):
        await shop.ask("/a")
        assert shop.calls == times


async def test_no_cache_max_age_0_of_a_client_is_parsed_and_ignored() -> None:
    """Neither it nor no-cache alone makes the handler run."""
    shop = shop_of(lambda number: Response(b"it"))
    await shop.ask("/a")
    assert_hit(await shop.ask("/a", headers={"cache-control": "no-cache, max-age=0"}))


async def test_unknown_directives_are_ignored() -> None:
    """They neither store, nor forbid, nor raise."""
    shop = shop_of(lambda number: Response(b"it", headers={"cache-control": 'no-stores, x-no-store, a="no-store", ='}))
    await shop.ask("/a")
    assert_hit(await shop.ask("/a"))


async def test_age_grows_with_the_clock() -> None:
    """It is no constant, and no time to live."""
    shop = shop_of(lambda number: Response(b"it"))
    await shop.ask("/a")
    ages = []
    for _ in range(4):
        ages.append((await shop.ask("/a")).headers["age"])
        shop.clock.tick(7)
    assert ages == ["0", "7", "14", "21"]


async def test_clearing_one_cache_leaves_the_others_alone() -> None:
    """Two caches in one process."""
    one, other = shop_of(lambda number: Response(b"1")), shop_of(lambda number: Response(b"2"))
    await one.ask("/a")
    await other.ask("/a")
    await one.cache.clear()
    assert_miss(await one.ask("/a"))
    assert_hit(await other.ask("/a"))


async def test_two_days_are_not_zero() -> None:
    """`timedelta.seconds` is not its length."""
    shop = shop_of(lambda number: Response(b"it"), ttl=timedelta(days=2), jitter=0)
    answer = await shop.ask("/a")
    assert answer.cache is not None
    assert answer.cache.ttl == 2 * 86_400


async def test_the_package_imports_without_extras() -> None:
    """Nothing that is not a dependency is imported by it."""
    code = "import sys, fastapi_cacheinval, fastapi_cacheinval.testing; print(*sorted(sys.modules))"
    there = await anyio.run_process([sys.executable, "-c", code])
    loaded = {name.partition(".")[0] for name in there.stdout.decode().split()}
    assert not loaded & {
        "httpx",
        "httpx2",
        "hypothesis",
        "opentelemetry.sdk",
        "pytest",
        "sqlalchemy",
        "uvicorn",
        "uvloop",
    }


def test_a_tag_that_is_too_long_is_digested_never_cut() -> None:
    """Two long tags that begin alike stay two."""
    long = ["x" * 5000 + str(number) for number in range(3)]
    tags = [normalise_tag(text) for text in long]
    assert len(set(tags)) == 3
    for tag in tags:
        assert tag is not None
        assert len(tag) <= MAX_TAG_BYTES


async def test_with_the_leader_cancelled_the_waiters_still_get_their_answer() -> None:
    """The forward was not only its own."""
    shop = Shop()
    gate = asyncio.Event()

    @shop.app.get("/", dependencies=[cached(ttl=60)])
    async def read() -> int:
        number = shop.count()
        await gate.wait()
        return number

    leader, waiter = shop.call(), shop.call()
    await until(lambda: shop.calls == 1)
    leader.task.cancel()
    gate.set()
    assert (await waiter.answer()).body == b"2"


async def test_a_clients_if_none_match_never_gets_a_304_for_another_url() -> None:
    """Two pages with other bytes have other validators."""
    shop = shop_of(lambda number: Response(b"%d" % number))
    etag = (await shop.ask("/a")).headers["etag"]
    assert (await shop.ask("/b", headers={"if-none-match": etag})).status_code == 200
    assert (await shop.ask("/b", headers={"if-none-match": etag})).status_code == 200


async def test_a_heads_empty_body_is_never_served_to_a_get() -> None:
    """HEAD fills with the content that it does not send."""
    shop = shop_of(lambda number: Response(b"it"))
    assert (await shop.ask("/a", method="HEAD")).body == b""
    assert (await shop.ask("/a")).body == b"it"


async def test_a_206_is_never_served_to_a_plain_get(tmp_path: Path) -> None:
    """A part is not the whole."""
    file = tmp_path / "file"
    file.write_bytes(b"0123456789")
    shop = shop_of(lambda number: FileResponse(file))
    for _ in range(3):
        await shop.ask("/a", headers={"range": "bytes=2-3"})
        answer = await shop.ask("/a")
        assert (answer.status_code, answer.body) == (200, b"0123456789")


@pytest.mark.parametrize("status", [401, 403, 404, 409, 422, 429, 500, 503])
async def test_a_refused_mutation_never_purges(status: int) -> None:
    """A client that may not write cannot empty the cache."""
    shop = shop_of(lambda number: Response(b"it"), tags=["it"])

    @shop.app.put("/{name}", dependencies=[invalidates("it")])
    async def write(name: str) -> None:
        raise HTTPException(status)

    await shop.ask("/a")
    assert (await shop.ask("/a", method="PUT")).status_code == status
    assert_hit(await shop.ask("/a"))


async def test_an_object_is_no_part_of_a_key() -> None:
    """The address of a freed object is given to another: what has no stable identity is never a key, and is forwarded."""

    class User:
        pass

    def user() -> Any:
        return User()

    shop = shop_of(lambda number: Response(b"%d" % number), partition_by=user)
    for number in range(1, 6):
        answer = await shop.ask("/a")
        assert answer.body == b"%d" % number
        assert answer.cache is not None
        assert answer.cache.detail == "partition"
    assert shop.cache.statistics().responses == 0


async def test_a_stored_503_never_comes_back_as_a_200() -> None:
    """The status is stored with the content."""
    shop = shop_of(lambda number: Response(b"down", status_code=503), statuses={200, 503})
    for _ in range(3):
        assert (await shop.ask("/a")).status_code == 503
    assert shop.calls == 1


async def test_four_variants_five_rounds_four_forwards() -> None:
    """One variant does not push the other out."""
    shop = Shop()

    @shop.app.get("/", dependencies=[cached(ttl=60, shared=True)])
    async def read(request: Request) -> Response:
        shop.count()
        return Response(request.headers["x-kind"], headers={"vary": "x-kind"})

    for _ in range(5):
        for kind in "abcd":
            assert (await shop.ask(headers={"x-kind": kind})).body.decode() == kind
    assert shop.calls == 4


async def test_a_stream_adds_no_delay_to_the_first_byte() -> None:
    """It is not gathered first."""
    gate = asyncio.Event()

    def stream(number: int) -> Response:
        async def chunks() -> AsyncIterator[bytes]:
            yield b"first"
            await gate.wait()

        return StreamingResponse(chunks())

    shop = shop_of(stream)
    call = shop.call("/a")
    await until(lambda: call.body == b"first")
    gate.set()
    await call.answer()


def test_no_bytes_ever_become_code() -> None:
    """Nothing in the package unpickles, evaluates or executes what it reads."""
    forbidden = re.compile(r"\b(?:pickle|marshal|shelve|dill)\b|\b(?:eval|exec)\(|\.eval\(f|(?<!_)KEYS \*")
    for file in PACKAGE.rglob("*.py"):
        assert not forbidden.search(file.read_text()), file


async def test_a_listener_that_fails_is_heard_of_and_breaks_no_purge(caplog: pytest.LogCaptureFixture) -> None:
    """What is downstream of a purge cannot undo it, and its failure is not silent."""
    shop = shop_of(lambda number: Response(b"%d" % number), tags=["it"])
    heard: list[Any] = []

    async def broken(receipt: Any) -> None:
        raise RuntimeError("downstream is down")

    async def fine(receipt: Any) -> None:
        heard.append(receipt)

    shop.cache.add_listener(broken)
    shop.cache.add_listener(fine)
    await shop.ask("/a")
    receipt = await shop.cache.invalidate("it")
    assert (await shop.ask("/a")).body == b"2"
    await until(lambda: heard)
    assert heard == [receipt]
    assert any("listener failed" in record.getMessage() for record in caplog.records)


async def test_nothing_is_logged_per_request_but_its_decision(caplog: pytest.LogCaptureFixture) -> None:
    """A cache in front of every request is silent about each, but for one line on a logger of its own."""
    caplog.set_level("DEBUG", logger="fastapi_cacheinval")
    shop = shop_of(lambda number: Response(b"it"))
    await shop.ask("/a")
    before = len(caplog.records)
    for path in ("/a", "/b", "/a", "/c"):
        await shop.ask(path)
    names = [record.name for record in caplog.records[before:] if record.name.startswith("fastapi_cacheinval")]
    assert names == ["fastapi_cacheinval.decisions"] * 4


async def test_the_middleware_works_without_fastapi_inside() -> None:
    """Around a plain ASGI app there is nothing to cache and nothing to break."""

    async def plain(scope: Any, receive: Any, send: Any) -> None:
        await Response(b"plain")(scope, receive, send)

    app = CacheMiddleware(plain, cache=HTTPCache())
    for _ in range(2):
        answer = await ask(app, "/")
        assert (answer.body, answer.fields("cache-status")) == (b"plain", [])
