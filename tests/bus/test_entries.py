"""Lines of the purge log as bytes: what cannot have been written by a replica is not read, and costs no time."""

from __future__ import annotations

import time
from itertools import count
from typing import Any

import msgpack
import pytest

from fastapi_cacheinval.bus.entries import (
    MOST_LINE_BYTES,
    LineError,
    decode_line,
    decode_lines,
    decode_page,
    encode_payload,
    encode_tags,
)
from fastapi_cacheinval.bus.script import PAGE_BYTES
from fastapi_cacheinval.core.log_types import Term
from fastapi_cacheinval.core.tag_limits import MOST_TAG_BYTES, MOST_TAGS
from fastapi_cacheinval.core.tags import ALL, path_tag

pytestmark = pytest.mark.anyio

HEADER = b"1 1 term 1 nonce 1\n"


def _line(tags: tuple[str, ...], trace: tuple[tuple[str, str], ...] = ()) -> bytes:
    # With numbers as long as they can be.
    header = b" ".join([b"1", b"9" * 20, b"t" * 16, b"9" * 20, b"n" * 16, b"9" * 20]) + b"\n"
    return header + encode_payload(tags, soft=False, trace=trace)


@pytest.mark.parametrize(
    "tags",
    [
        tuple(f"tag:{number}" for number in range(MOST_TAGS)),
        tuple(f"{number:01024}" for number in range(MOST_TAG_BYTES // 1024)),
        tuple(path_tag("/" + "ü" * 100 + str(number)) for number in range(2_300)),
        tuple(path_tag("/\udcff" * 100 + str(number)) for number in range(1_200)),
    ],
    ids=["many", "long", "paths", "paths that are no text"],
)
def test_the_largest_lines_of_earlier_releases_are_read(tags: tuple[str, ...]) -> None:
    """They had all tags of a purge in one line, up to 8,000 and 512 KiB, with trace context."""
    message = _line(tags, (("traceparent", "0" * 2_000),) * 2)
    assert len(message) <= MOST_LINE_BYTES
    assert decode_line(message).tags == tags


@pytest.mark.parametrize(
    "tags",
    [(), ("",), ("a",), ("a", "b"), ("a\nb", "c"), ("\udcff", "ü"), tuple(path_tag(f"/\n{n}") for n in range(3))],
)
def test_tags_as_bytes_are_those_of_each_tag(tags: tuple[str, ...]) -> None:
    """Whatever stands in a path."""
    assert encode_tags(tags) == tuple(tag.encode("utf-8", "surrogatepass") for tag in tags)


def test_a_piece_of_a_purge_is_a_purge_to_who_knows_of_none() -> None:
    """Earlier releases read the first five fields of a payload, and find the tags of the piece there."""
    payload = encode_payload(("a", "b"), soft=True, purges=0)
    assert msgpack.unpackb(payload)[:5] == [1, ["a", "b"], True, False, []]
    assert decode_line(HEADER + payload).purges == 0
    assert decode_line(HEADER + msgpack.packb([1, ["a"], False, False, []])).purges == 1


def test_who_waits_is_in_the_line() -> None:
    """A line says who is told once all have applied it; one of an earlier release names nobody."""
    payload = encode_payload(("a",), soft=False, prompt=True, waiter="0123456789abcdef")
    line = decode_line(HEADER + payload)
    assert (line.prompt, line.waiter) == (True, "0123456789abcdef")
    earlier = decode_line(HEADER + msgpack.packb([1, ["a"], False, True, [], 1]))
    assert (earlier.prompt, earlier.waiter) == (True, "")


@pytest.mark.parametrize("said", ["a:b", "a b", "a\r\nPING", "ü", "", "x" * 65, 7, None, ["a"], b"a"])
def test_a_waiter_that_no_replica_is_called_is_nobody(said: object) -> None:
    """It becomes part of a key's and a channel's name, so it is a short word or nothing; the tags count all the same."""
    line = decode_line(HEADER + msgpack.packb([1, ["a"], False, True, [], 1, said]))
    assert (line.tags, line.prompt, line.waiter) == (("a",), True, "")


def test_a_line_tells_the_process_that_wrote_it() -> None:
    """Lines of earlier releases have no origin, a long one is cut, and one that is no text is read as text."""
    assert decode_line(HEADER + encode_payload(("a",), soft=False, origin="web-1/42")).origin == "web-1/42"
    assert decode_line(HEADER + msgpack.packb([1, ["a"], False, False, []])).origin == ""
    assert decode_line(HEADER + msgpack.packb([1, ["a"], False, False, [], 0])).origin == ""
    assert len(decode_line(HEADER + encode_payload(("a",), soft=False, origin="x" * 1000)).origin) == 128
    assert decode_line(HEADER + msgpack.packb([1, ["a"], False, False, [], 1, "", 7])).origin == "7"


def _forged() -> dict[str, bytes]:
    room = MOST_LINE_BYTES - len(HEADER) - 10
    array = b"\xdc" + (250).to_bytes(2, "big") + b"\x01" * 250
    return {
        "fifty megabytes": HEADER + b"\x01" * 50_000_000,
        "no header": b"1" * room,
        "one long number": b"1 " + b"9" * room + b" a 1 b 1\n",
        "arrays in arrays": HEADER + b"\x91" * room,
        "an array of arrays": HEADER + b"\x92\x01" + (b"\xdd" + (8_000).to_bytes(4, "big") + array * 8_000)[:room],
        "an array that says it is long": HEADER + b"\x95\x01\xdd\xff\xff\xff\xff",
        "maps": HEADER + b"\x95\x01" + (b"\xde\xff\xff" + b"\x01" * room)[:room],
        "more tags than are written": HEADER + msgpack.packb([1, ["a"] * (MOST_TAGS + 2), False, False, []]),
        "numbers for tags": HEADER + msgpack.packb([1, [1] * MOST_TAGS, False, False, []]),
    }


@pytest.mark.parametrize("kind", list(_forged()))
def test_a_forged_message_takes_no_time_and_is_never_taken_for_less_than_it_says(kind: str) -> None:
    """It is no line, so that the log is asked, or a purge of everything. Before: up to 1.7 seconds of the loop."""
    message = _forged()[kind]
    seconds: list[float] = []
    for _ in range(3):
        began = time.process_time()
        try:
            tags: Any = decode_line(message).tags
        except LineError:
            tags = None
        seconds.append(time.process_time() - began)
        assert tags in (None, (ALL,))
    assert min(seconds) < 0.05


async def test_a_reply_is_read_up_to_a_bound() -> None:
    """It is a page and a line at most; past it the replica gives up what it keeps."""
    full = _line(tuple(f"tag:{number}" for number in range(MOST_TAGS)))
    page = [full] * -(-PAGE_BYTES // len(full))
    assert await decode_lines(page) == tuple(map(decode_line, page))
    with pytest.raises(LineError, match="bytes"):
        await decode_lines([_line((f"{0:01000}",) * 400)] * 20)


def test_a_page_of_hostile_members_is_refused_or_passed() -> None:
    """A member that is too long names no tag; a number that is none is an error that the caller knows."""
    numbers = count(1)
    members: list[Any] = [b"h" + b"x" * 10_000_000, b"3", b"ha", b"2"]
    page = decode_page(Term(1, "a"), 3, 3, 10, 0, members)
    assert page is not None
    assert page.purged == (("a", 2, False),)
    assert decode_page(Term(1, "a"), 3, 3, 1, 0, [b"h" + b"x" * 10_000, b"3"]) is None
    for wrong in (b"nan", b"inf", b"x"):
        with pytest.raises((ValueError, OverflowError)):
            decode_page(Term(1, "a"), next(numbers), 3, 10, 0, [b"ha", wrong])
