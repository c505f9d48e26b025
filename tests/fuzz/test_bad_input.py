"""Malformed, duplicated, huge and non-ASCII requests: answered as without the cache, in bounded room and time."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import Request, Response

from fastapi_cacheinval import cached
from tests.helpers.http import Call, Shop, ask, asked_by_scope, echoing, same, scope_of

pytestmark = pytest.mark.anyio

HUGE = b"x" * 65_536


BAD_FIELDS: list[tuple[str, list[tuple[bytes, bytes]]]] = [
    ("a quote", [(b"if-none-match", b'"')]),
    ("many quotes", [(b"if-none-match", b'"' * 10_001)]),
    ("ten thousand entity tags", [(b"if-none-match", b",".join(b'"%d"' % n for n in range(10_000)))]),
    ("ten thousand lines", [(b"if-none-match", b'"%d"' % n) for n in range(10_000)]),
    ("unfinished entity tags", [(b"if-none-match", b'W/"a, W/, W/"", "\\", *, "\xe9"')]),
    ("commas", [(b"if-none-match", b"," * 65_536)]),
    ("an absurd date", [(b"if-modified-since", b"Mon, 99 Foo 999999999999999999999 99:99:99 GMT")]),
    ("a date without an end", [(b"if-modified-since", b"Mon, 01 Jan 2024 00:00:00 GMT" * 3_000)]),
    ("the last date", [(b"if-modified-since", b"Fri, 31 Dec 9999 23:59:60 GMT")]),
    ("two dates", [(b"if-modified-since", b"x"), (b"if-modified-since", b"Mon, 01 Jan 2024 00:00:00 GMT")]),
    ("ten thousand encodings", [(b"accept-encoding", b",".join(b"e%d;q=0.5" % n for n in range(10_000)))]),
    ("odd weights", [(b"accept-encoding", b"gzip;q=nan, br;q=-1, *;q=1e9, ;q=1, gzip;;q=1, gzip;q=0.00000000001")]),
    ("encodings that contradict", [(b"accept-encoding", b"gzip, gzip;q=0"), (b"accept-encoding", b"gzip;q=1")]),
    ("encodings of bytes", [(b"accept-encoding", bytes(range(1, 256)))]),
    ("directives", [(b"cache-control", b'=,=;"no-store,,max-age="' + b"," * 10_000)]),
    ("a number of digits", [(b"cache-control", b"max-age=" + b"9" * 65_536)]),
    ("a quote that stays open", [(b"cache-control", b'private="' + HUGE)]),
    ("ranges", [(b"range", b"bytes=" + b"0-0," * 10_000)]),
    ("a range of nothing", [(b"range", b"bytes=-")]),
    ("an if-range", [(b"if-range", b'W/"'), (b"range", b"bytes=0-0")]),
    ("languages", [(b"accept-language", b"\xff\xfe\x00"), (b"accept-language", b""), (b"accept-language", HUGE)]),
    ("cookies", [(b"cookie", b"a=" + HUGE), (b"cookie", b"=;;=;\x00")]),
    ("no name", [(b"", b""), (b"", b"x")]),
    ("odd names", [(b"\xff", b"1"), (b"a b", b"2"), (b"if-none-match ", b'"x"'), (b":authority", b"evil")]),
    ("authorization", [(b"authorization", b"\xff" * 100)]),
    ("a forwarded host", [(b"x-forwarded-host", b"evil"), (b"forwarded", b"host=evil")]),
    ("an open mind", [(b"accept", b"*/*;q=" + HUGE)]),
]

HOSTS: list[list[bytes]] = [
    [],
    [b""],
    [b"good", b"evil"],
    [b"evil", b"good"],
    [b"good"],
    [b"GOOD"],
    [b"good:80"],
    [b"\xff\xfe"],
    [b"["],
    [b"good/path?query#x"],
    [b"a, b"],
    [HUGE],
]

TARGETS: list[tuple[str, bytes]] = [
    ("/items/1", b""),
    ("/items/1", b"q=%"),
    ("/items/1", b"q=%zz&many=%"),
    ("/items/1", b"q=\xff&q=\xfe"),
    ("/items/1", b"&&&=&=&q"),
    ("/items/1", b"q=a&q=b"),
    ("/items/1", b"q=b&q=a"),
    ("/items/1", b"q=a%26q=b"),
    ("/items/1", b"q=a%00b"),
    ("/items/1", b"q=a b+c%20d"),
    ("/items/1", b"many=1&many=2&many=1"),
    ("/items/1", b"many=1&many=1&many=2"),
    ("/items/1", b"many=" + HUGE),
    ("/items/1", b"&".join(b"many=%d" % n for n in range(8_000))),
    ("/items/1", b"&".join(b"other%d=1" % n for n in range(8_000))),
    ("/items/1", b"q=" + b"%F0%9F" * 5_000),
    ("/items/042", b""),
    ("/items/+42", b""),
    ("/items/42", b""),
    ("/items/1e3", b""),
    ("/items/" + "9" * 5_000, b""),
    ("/items/٤٢", b""),
    ("/items/%", b""),
    ("/items/\x00", b""),
    ("/items/", b""),
    ("/text/", b""),
    ("/text/%", b""),
    ("/text/%2F", b""),
    ("/text/\x00\x01\x7f", b""),
    ("/text/\ud800", b"q=1"),
    ("/text/\udcff\udc80", b"q=%ff"),
    ("/text/é/ß/\u202e", b""),
    ("/text/a/../b", b""),
    ("/text//a", b""),
    ("//text/a", b""),
    ("/text/" + "a" * 65_536, b""),
    ("/text/a b\r\nset-cookie: x=1", b""),
    ("/text/{text}", b"q={q}"),
    ("", b""),
    ("*", b""),
    ("plain", b""),
    ("/spoken", b""),
    ("/plain", b"\x00\xff" * 32_768),
]


# Old releases of the framework take a second for ten thousand fields, by themselves.
@pytest.mark.timeout(240)
@pytest.mark.parametrize("fields", [fields for _, fields in BAD_FIELDS], ids=[name for name, _ in BAD_FIELDS])
async def test_bad_fields_are_answered_as_without_the_cache(fields: list[tuple[bytes, bytes]]) -> None:
    """Cold, warm, and to the next client who sends none of it."""
    shop, uncached = echoing(), echoing(enabled=False)
    for path in ("/items/1", "/text/a", "/spoken", "/plain"):
        for headers in (fields, fields, [], fields):
            await same(shop, uncached, scope_of(path, headers=headers))
    assert shop.cache.statistics().forwards_under_way == 0


async def test_bad_targets_are_answered_as_without_the_cache() -> None:
    """Every path and query, cold and warm, in two orders: never another's answer, never a failure of ours."""
    shop, uncached = echoing(), echoing(enabled=False)
    for targets in (TARGETS, TARGETS, TARGETS[::-1]):
        for path, query in targets:
            scope = scope_of("/", headers=None)
            scope |= {"path": path, "raw_path": path.encode("utf-8", "surrogatepass"), "query_string": query}
            await same(shop, uncached, scope)
    statistics = shop.cache.statistics()
    assert statistics.hits > 30
    assert statistics.forwards_under_way == 0


async def test_bad_hosts_are_answered_as_without_the_cache() -> None:
    """None, empty, two lines, bytes: no failure, and what was stored for one is not another's."""
    shop, uncached = echoing(), echoing(enabled=False)
    for _ in range(2):
        for hosts in HOSTS:
            fields = [(b"host", host) for host in hosts]
            for path in ("/items/1", "/text/a"):
                await same(shop, uncached, scope_of(path, host=None, headers=fields))


async def test_two_host_lines_never_fill_for_the_first() -> None:
    """A second Host cannot bring its response under the first one's key, nor take from it."""
    shop = Shop()

    @shop.app.get("/", dependencies=[cached(ttl=60, shared=True)])
    async def read(request: Request) -> list[str]:
        return request.headers.getlist("host")

    two = [(b"host", b"good"), (b"host", b"evil")]
    assert (await shop.ask(host=None, headers=two)).body == b'["good","evil"]'
    assert (await shop.ask(host="good")).body == b'["good"]'
    assert (await shop.ask(host="evil")).body == b'["evil"]'
    assert (await shop.ask(host=None, headers=two)).body == b'["good","evil"]'
    assert (await shop.ask(host=None, headers=two[::-1])).body == b'["evil","good"]'
    assert (await shop.ask(host=None)).body == b"[]"


@pytest.mark.parametrize("method", ["", "get", "GÉT", "G\x00T", "GET ", "x" * 10_000, "PROPFIND", "PRI"])
async def test_odd_methods_are_answered_as_without_the_cache(method: str) -> None:
    """They are no GET, and they neither purge nor fill what is stored for it."""
    shop, uncached = echoing(), echoing(enabled=False)
    await shop.ask("/text/a")
    await same(shop, uncached, scope_of("/text/a", method=method))
    hit = await shop.ask("/text/a")
    assert hit.cache is not None
    assert hit.cache.hit


async def test_scopes_with_the_least_that_is_allowed() -> None:
    """Without a scheme, root path, state, extensions or client: the specification lets them be left out."""
    shop = echoing()
    scope: dict[str, Any] = {
        "type": "http",
        "method": "GET",
        "path": "/text/a",
        "headers": [],
        "query_string": b"",
        "asgi": {},
    }
    for _ in range(2):
        assert (await Call(shop.app, dict(scope)).answer()).body == b"a|"
        assert (await Call(shop.app, dict(scope) | {"method": "HEAD"}).answer()).status_code == 200
    scope |= {"headers": ([b"host", b"test"],), "extensions": None}
    for _ in range(2):
        assert (await Call(shop.app, dict(scope)).answer()).body == b"a|"


async def test_a_flood_of_variants_targets_and_hosts_stays_within_its_room() -> None:
    """Thousands of queries, hosts, paths and fields: what is kept never takes more than l1_max_bytes."""
    shop = echoing(l1_max_bytes=256 * 1024)
    largest = 0
    for number in range(1500):
        text = b"%d" % number
        await shop.ask(f"/items/1?q={number}", headers={"accept-encoding": text, "x-junk": text * 100})
        await shop.ask(f"/items/1?junk={number}&q=1", host=text)
        await shop.ask("/spoken", headers={"accept-language": text * 200, "accept": text})
        await shop.ask(f"/text/{number}" + "x" * (number % 700))
        statistics = shop.cache.statistics()
        largest = max(largest, statistics.size_bytes)
    assert largest <= 256 * 1024
    assert len(shop.cache._core.engine.replica.cells) == 0
    assert shop.cache.statistics().forwards_under_way == 0


async def test_mutations_with_bad_paths_do_not_fail() -> None:
    """Their paths and tags are purged as they were stored."""
    shop = echoing()
    for path, query in TARGETS:
        if not path.startswith("/text/") or "\n" in path:
            continue
        scope = scope_of("/") | {"path": path, "query_string": query}
        before = await asked_by_scope(shop, scope)
        again = await asked_by_scope(shop, scope)
        assert again.body == before.body
        written = await asked_by_scope(shop, scope | {"method": "PUT", "query_string": b""})
        assert written.status_code == 200
        after = await asked_by_scope(shop, scope)
        assert after.cache is not None
        assert not after.cache.hit, path


async def test_hand_written_tags_of_clients_data_never_raise() -> None:
    """invalidate() and invalidate_url() take whatever a client sent."""
    shop = echoing()
    async with shop.cache:
        for path, query in TARGETS:
            await shop.cache.invalidate(path, query.decode("latin-1"), "")
            await shop.cache.invalidate_url(path)
    assert await ask(shop.app, "/plain")


async def test_invalidate_url_reaches_odd_paths() -> None:
    """A path that looks like a host, or like a broken one, is a path."""
    shop = echoing()
    for path in ("/text//a", "/text/a b", "/text/[", "/text/é"):
        await shop.ask(path)
        await shop.cache.invalidate_url(path)
        after = await shop.ask(path)
        assert after.cache is not None
        assert not after.cache.hit, path


async def test_a_mutation_names_what_it_purges_in_any_case() -> None:
    """A Surrogate-Key or Location of a layer inside counts however it is spelled."""
    shop = echoing()

    @shop.app.post("/make")
    async def make() -> Response:
        response = Response()
        response.raw_headers += [(b"Surrogate-Key", b"text:a"), (b"Location", b"/text/b")]
        return response

    for path in ("/text/a", "/text/b"):
        await shop.ask(path)
    assert (await shop.ask("/make", method="POST")).status_code == 200
    for path in ("/text/a", "/text/b"):
        after = await shop.ask(path)
        assert after.cache is not None
        assert not after.cache.hit, path
