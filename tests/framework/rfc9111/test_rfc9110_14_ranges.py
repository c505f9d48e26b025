"""RFC 9110 section 14 and RFC 9111 sections 3.3 and 3.4: ranges of whole stored responses, and stored parts."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from fastapi.responses import FileResponse

from fastapi_cacheinval.testing import assert_hit
from tests.helpers.http import Shop, until
from tests.helpers.origin import Origin

pytestmark = pytest.mark.anyio

WHOLE = b"0123456789"


async def whole(**headers: str) -> Origin:
    """An origin whose ten bytes are stored and fresh."""
    origin = Origin()
    origin.says(
        {"cache-control": "max-age=60", "etag": '"1"', "content-type": "text/plain", "content-length": "10", **headers},
        WHOLE,
    )
    await origin.get()
    return origin


@pytest.mark.parametrize(
    ("asked", "status", "body", "range_"),
    [
        ("bytes=0-1", 206, b"01", b"bytes 0-1/10"),
        ("bytes=1-", 206, b"123456789", b"bytes 1-9/10"),
        ("bytes=-1", 206, b"9", b"bytes 9-9/10"),
        ("bytes=-99", 206, WHOLE, b"bytes 0-9/10"),
        ("bytes=8-99", 206, b"89", b"bytes 8-9/10"),
        ("Bytes = 2-3", 206, b"23", b"bytes 2-3/10"),
        ("bytes=0-1, 2-3", 206, b"0123", b"bytes 0-3/10"),
        ("bytes=0-4,3-5", 206, b"012345", b"bytes 0-5/10"),
        ("bytes=10-", 416, b"", b"bytes */10"),
        ("bytes=-0", 416, b"", b"bytes */10"),
        ("bytes=99-100,50-", 416, b"", b"bytes */10"),
        ("bytes=2-1", 200, WHOLE, None),
        ("bytes=", 200, WHOLE, None),
        ("bytes=-", 200, WHOLE, None),
        ("bytes=a-b", 200, WHOLE, None),
        ("bytes=1-2-3", 200, WHOLE, None),
        ("lines=1-2", 200, WHOLE, None),
        ("bytes=" + ",".join(["0-0,9-9"] * 40), 200, WHOLE, None),
        ("bytes=99999999999999999999-", 200, WHOLE, None),
    ],
)
async def test_14_2_one_range(asked: str, status: int, body: bytes, range_: bytes | None) -> None:
    """What can be satisfied is cut, what cannot is a 416, what is malformed is ignored."""
    origin = await whole()
    answer = await origin.get(headers={"range": asked})
    assert (answer.status_code, answer.body, origin.forwards) == (status, body, 1)
    assert answer.fields("content-range") == ([] if range_ is None else [range_])
    assert answer.fields("content-length") == [b"%d" % len(body)]
    if status == 206:
        assert answer.fields("etag") == [b'"1"']


async def test_14_6_several_ranges_come_as_multipart() -> None:
    """Each part with its type and its range, in the order asked for, and the length is right."""
    origin = await whole()
    answer = await origin.get(headers={"range": "bytes=8-9,0-1"})
    kind = answer.fields("content-type")[0]
    boundary = kind.partition(b"boundary=")[2]
    assert kind.startswith(b"multipart/byteranges; boundary=")
    parts = answer.body.split(b"--" + boundary)
    assert [part.partition(b"\r\n\r\n")[2].strip() for part in parts[1:-1]] == [b"89", b"01"]
    assert b"Content-Range: bytes 8-9/10" in parts[1]
    assert b"Content-Type: text/plain" in parts[1]
    assert answer.fields("content-length") == [b"%d" % len(answer.body)]
    assert answer.fields("content-range") == []


@pytest.mark.parametrize(
    ("condition", "status"),
    [
        ({"if-range": '"1"'}, 206),
        ({"if-range": '"2"'}, 200),
        ({"if-range": 'W/"1"'}, 200),
        ({"if-range": "Wed, 01 Jan 2020 00:00:00 GMT"}, 206),
        ({"if-range": "Wed, 01 Jan 2020 00:00:01 GMT"}, 200),
        ({"if-range": "nonsense"}, 200),
        ({"if-none-match": '"1"'}, 304),
        ({"if-none-match": '"2"'}, 206),
    ],
)
async def test_13_1_5_if_range_and_precedence(condition: dict[str, str], status: int) -> None:
    """A range is cut only out of the very representation that the client has; a 304 goes first."""
    origin = await whole(**{"last-modified": "Wed, 01 Jan 2020 00:00:00 GMT"})
    assert (await origin.get(headers={"range": "bytes=0-1", **condition})).status_code == status


async def test_14_2_a_weak_validator_is_no_match_for_if_range() -> None:
    """Weak tags promise no equal bytes."""
    origin = await whole(etag='W/"1"')
    assert (await origin.get(headers={"range": "bytes=0-1", "if-range": 'W/"1"'})).status_code == 200


async def test_14_2_head_and_other_statuses_have_no_ranges() -> None:
    """`Range` counts for GET on a 200 alone."""
    origin = await whole()
    assert (await origin.get(method="HEAD", headers={"range": "bytes=0-1"})).status_code == 200
    other = Origin()
    other.says({"cache-control": "max-age=60"}, WHOLE, status=404)
    await other.get()
    assert (await other.get(headers={"range": "bytes=0-1"})).status_code == 404


async def test_3_3_a_part_is_never_served_as_the_whole() -> None:
    """A stored 206 answers ranges within it, and a plain GET goes to the origin."""
    origin = Origin()
    part = {"cache-control": "max-age=60", "content-range": "bytes 4-8/10", "etag": '"1"'}
    origin.says(part, b"45678", status=206)
    origin.says({"cache-control": "max-age=60", "etag": '"1"'}, WHOLE)
    await origin.get(headers={"range": "bytes=4-8"})
    assert origin.sent("range") == [b"bytes=4-8"]
    cut = await origin.get(headers={"range": "bytes=5-6"})
    assert (cut.status_code, cut.body, cut.fields("content-range")) == (206, b"56", [b"bytes 5-6/10"])
    assert origin.forwards == 1
    plain = await origin.get()
    assert (plain.status_code, plain.body, origin.forwards) == (200, WHOLE, 2)


@pytest.mark.parametrize("asked", ["bytes=3-5", "bytes=5-9", "bytes=-2", "bytes=0-", "bytes=4-5,7-8"])
async def test_3_3_what_a_part_does_not_hold_goes_to_the_origin(asked: str) -> None:
    """Even if only one byte is missing."""
    origin = Origin()
    origin.says({"cache-control": "max-age=60", "content-range": "bytes 4-8/10"}, b"45678", status=206)
    await origin.get(headers={"range": "bytes=4-8"})
    await origin.get(headers={"range": asked})
    assert origin.forwards == 2


@pytest.mark.parametrize(
    "range_", ["bytes 4-5/10", "bytes */10", "bytes 8-4/10", "bytes 4-12/10", "lines 4-8/10", "bytes 4-8/*", ""]
)
async def test_3_4_a_part_that_does_not_say_rightly_what_it_is_is_left_alone(range_: str) -> None:
    """It is passed on and not used again."""
    origin = Origin()
    origin.says({"cache-control": "max-age=60", "content-range": range_}, b"45678", status=206)
    first = await origin.get(headers={"range": "bytes=4-8"})
    assert (first.status_code, first.body) == (206, b"45678")
    await origin.get(headers={"range": "bytes=4-8"})
    assert origin.forwards == 2


@pytest.mark.parametrize("asked", ["bytes=4-8", "bytes=5-6"])
@pytest.mark.parametrize(
    ("condition", "hit"),
    [
        (['"1"'], True),
        (["Wed, 01 Jan 2020 00:00:00 GMT"], True),
        (['"2"'], False),
        (['W/"1"'], False),
        (["Wed, 01 Jan 2020 00:00:01 GMT"], False),
        (["nonsense"], False),
        ([""], False),
        (['"1"', '"1"'], False),
    ],
)
async def test_13_1_5_a_part_is_for_who_has_the_rest_of_it(asked: str, condition: list[str], hit: bool) -> None:
    """To who has other bytes the whole is the answer, which a part is not: the origin gives it, and it is stored."""
    origin = Origin()
    fields = {"cache-control": "max-age=60", "etag": '"1"', "last-modified": "Wed, 01 Jan 2020 00:00:00 GMT"}
    origin.says({**fields, "content-range": "bytes 4-8/10"}, b"45678", status=206)
    origin.says(fields, WHOLE)
    await origin.get(headers={"range": "bytes=4-8"})
    answer = await origin.get(headers=[("range", asked), *(("if-range", each) for each in condition)])
    assert (answer.status_code, origin.forwards) == ((206, 1) if hit else (200, 2))
    assert hit or answer.body == WHOLE
    assert hit or (await origin.get()).cache.hit


async def test_3_4_a_part_goes_stale_and_is_purged_like_the_whole() -> None:
    """Its lifetime and its tags are its own."""
    origin = Origin()
    headers = {"cache-control": "max-age=60", "content-range": "bytes 4-8/10", "cache-tag": "t"}
    origin.says(headers, b"45678", status=206)
    asked = {"range": "bytes=4-8"}
    await origin.get(headers=asked)
    origin.clock.tick(61)
    await origin.get(headers=asked)
    assert origin.forwards == 2
    await origin.cache.invalidate("t")
    await origin.get(headers=asked)
    assert origin.forwards == 3


async def test_3_4_a_206_to_a_plain_get_is_not_stored() -> None:
    """An origin that answers with a part though nobody asked is passed on."""
    origin = Origin()
    origin.says({"cache-control": "max-age=60", "content-range": "bytes 0-1/10"}, b"01", status=206)
    assert (await origin.get()).status_code == 206
    await origin.get(headers={"range": "bytes=0-1"})
    assert origin.forwards == 2


@pytest.mark.parametrize("status", [416, 412, 417, 400, 404, 206, 204, 301, 200])
@pytest.mark.parametrize("asked", ["bytes=999-", "bytes=0-1", "bytes=0-0,5-6", "bytes=-1"])
async def test_3_what_answers_a_range_is_never_a_plain_get_s(status: int, asked: str) -> None:
    """Whatever an origin says to a forwarded `Range`, only the whole is used for those who ask for the whole."""
    origin = Origin()
    headers = {"cache-control": "public, max-age=60"}
    part = {"content-range": "bytes 0-1/10"} if status == 206 else {}
    origin.says({**headers, **part}, b"of one range", status=status)
    origin.says(headers, WHOLE)
    first = await origin.get(headers={"range": asked})
    assert status in (200, first.status_code)
    assert origin.sent("range") == [asked.encode()]
    plain = await origin.get()
    assert (plain.status_code, plain.body) == ((200, b"of one range") if status == 200 else (200, WHOLE))


@pytest.mark.parametrize("status", [416, 412, 417, 304, 428, 429, 431, 511])
async def test_3_what_answers_one_request_is_not_stored_though_nobody_asked_for_it(status: int) -> None:
    """A 416 without a `Range`, or a 412 without a condition, stays one request's, and so does what is about its sender."""
    origin = Origin()
    origin.says({"cache-control": "public, max-age=60"}, b"", status=status)
    origin.says({"cache-control": "public, max-age=60"}, WHOLE)
    await origin.get()
    assert (await origin.get()).body == WHOLE


@pytest.mark.parametrize(
    "asked",
    [
        {"range": "bytes=x"},
        {"range": "bytes=9-1"},
        {"range": "lines=1-2"},
        {"range": ""},
        {"range": "bytes=" + ",".join(["0-0,9-9"] * 40)},
        [("range", "bytes=0-1"), ("range", "bytes=2-3")],
        {"range": "bytes=x", "if-range": '"1"'},
        {"if-range": '"1"'},
    ],
)
@pytest.mark.parametrize("condition", [{}, {"cache-control": "no-cache"}, {"authorization": "Basic x"}])
async def test_14_2_a_range_that_does_not_count_is_not_forwarded(
    asked: dict[str, str] | list[tuple[str, str]], condition: dict[str, str]
) -> None:
    """An app that reads it otherwise would answer with an error, which everybody would get."""
    origin = Origin()
    origin.says({"cache-control": "public, max-age=60"}, WHOLE)
    lines = list(asked.items()) if isinstance(asked, dict) else asked
    answer = await origin.get(headers=[*lines, *condition.items()])
    assert (answer.status_code, origin.sent("range"), origin.sent("if-range")) == (200, [], [])
    assert (await origin.get()).cache.hit


async def test_14_2_the_range_of_a_head_is_not_forwarded() -> None:
    """`Range` is defined for GET alone."""
    origin = Origin()
    origin.says({"cache-control": "max-age=60"}, b"")
    await origin.get(method="HEAD", headers={"range": "bytes=0-1", "if-range": '"1"'})
    assert (origin.sent("range"), origin.sent("if-range")) == ([], [])


async def test_14_2_a_range_beside_a_forward_of_the_whole_disturbs_nobody() -> None:
    """Those who wait for the whole get it, whatever the range beside it is answered with."""
    origin = Origin()
    origin.gate = asyncio.Event()
    headers = {"cache-control": "public, max-age=60"}
    origin.says(headers, WHOLE)
    origin.says(headers, b"", status=416)
    origin.says(headers, b"unexpected")
    whole = [origin.call(), origin.call()]
    await until(lambda: origin.forwards == 1)
    part = origin.call(headers={"range": "bytes=99-"})
    await until(lambda: origin.forwards == 2)
    origin.gate.set()
    assert [(await call.answer()).body for call in whole] == [WHOLE, WHOLE]
    assert (await part.answer()).status_code == 416
    assert (await origin.get()).body == WHOLE
    assert origin.forwards == 2


async def test_14_2_a_range_that_leads_a_flight_asks_for_the_whole() -> None:
    """After a purge the stored response is of no use, and those who wait want all of the new one."""
    origin = await whole(**{"cache-tag": "t"})
    origin.forget()
    origin.says({"cache-control": "public, max-age=60"}, b"9876543210")
    await origin.cache.invalidate("t")
    answer = await origin.get(headers={"range": "bytes=0-1"})
    assert (answer.status_code, answer.body) == (206, b"98")
    assert (await origin.get()).cache.hit


async def test_13_1_5_if_range_goes_with_its_range() -> None:
    """The origin decides on a miss; its 200 is the whole for everybody."""
    origin = Origin()
    origin.says({"cache-control": "public, max-age=60", "etag": '"2"'}, WHOLE)
    await origin.get(headers={"range": "bytes=0-1", "if-range": '"1"'})
    assert (origin.sent("range"), origin.sent("if-range")) == ([b"bytes=0-1"], [b'"1"'])
    assert (await origin.get()).cache.hit


@pytest.mark.parametrize("control", ["max-age=5, stale-while-revalidate=60", "max-age=5"])
async def test_14_2_a_range_on_what_is_stale_renews_the_whole(control: str) -> None:
    """In the foreground and in the background the client's `Range` is not forwarded."""
    origin = Origin()
    origin.says({"cache-control": control}, WHOLE)
    await origin.get()
    origin.clock.tick(10)
    answer = await origin.get(headers={"range": "bytes=0-1"})
    assert (answer.status_code, answer.body) == (206, b"01")
    await until(lambda: origin.forwards == 2)
    assert origin.sent("range") == []


@pytest.mark.parametrize("asked", ["bytes=999999-", "bytes=x", "bytes=0-1", "lines=1-2", "bytes=5-1"])
@pytest.mark.parametrize("layered", [False, True])
async def test_14_2_a_public_file_is_not_poisoned_by_a_range(tmp_path: Path, asked: str, layered: bool) -> None:
    """The framework's own file response, marked public by whoever: a plain GET gets the file."""
    file = tmp_path / "file.txt"
    file.write_bytes(WHOLE)
    shop = Shop(middleware={"honour_headers": True})

    @shop.app.get("/")
    async def read() -> FileResponse:
        return FileResponse(file, headers={"cache-control": "public, max-age=60"})

    if layered:

        @shop.app.middleware("http")
        async def mark(request: Any, call_next: Any) -> Any:
            response = await call_next(request)
            response.headers["cache-control"] = "public, max-age=60"
            return response

    await shop.ask(headers={"range": asked})
    for _ in range(2):
        plain = await shop.ask()
        assert (plain.status_code, plain.body) == (200, WHOLE)
    assert_hit(plain)
