"""RFC 9110 section 14 and RFC 9111 sections 3.3 and 3.4: ranges of whole stored responses, and stored parts."""

from __future__ import annotations

import pytest

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
