"""Raw requests over real sockets, to a server with the cache and to one without it."""

from __future__ import annotations

import pytest

from fuzz.raw import run
from fuzz.stories import Sent, Story
from fuzz.transcripts import differences, replies
from fuzz.ways import masked, run_ways

_HEAD = b"HTTP/1.1 200 OK\r\nserver: uvicorn\r\n"
_PLAIN = Story((Sent("GET", "/items/1", b"", conditional=False, ranged=False, broken=False),), (b"",))
_RANGED = Story((Sent("GET", "/items/1", b"", conditional=True, ranged=True, broken=False),), (b"",))


@pytest.mark.parametrize("server", ["httptools", "h11"])
@pytest.mark.parametrize("mode", ["policy", "headers"])
def test_raw_requests_are_answered_as_without_the_cache(mode: str, server: str) -> None:
    """Whatever bytes come, in whatever packets, every answer is the one of a server that has no cache."""
    tried = run(mode, server, "suite", seconds=30, most=150)
    print(f"\n{tried.row()}")  # noqa: T201
    assert tried.found == []
    assert tried.stories >= 20
    assert tried.results["hit"] > tried.requests / 50


@pytest.mark.parametrize("mode", ["bare", "policy"])
def test_hits_in_the_servers_protocol_are_the_apps_byte_for_byte(mode: str) -> None:
    """Two servers with the cache are told the same stories, in the same packets: only the time may differ."""
    tried = run_ways(mode, "suite", seconds=30, most=150)
    print(f"\n{tried.row()}")  # noqa: T201
    assert tried.found == []
    assert tried.stories >= 20
    assert tried.results["hit"] > tried.stories / 10


def test_a_byte_that_differs_is_seen_and_the_time_is_not() -> None:
    """`Date`, `Age` and the remaining lifetime move on; nothing else is left out."""
    one = b"HTTP/1.1 200 OK\r\ndate: a\r\nage: 1\r\ncache-status: cacheinval; hit; ttl=5\r\n\r\nage: 1"
    assert masked(one) == masked(one.replace(b"date: a", b"date: b").replace(b"\nage: 1\r", b"\nage: 2\r"))
    assert masked(one) == masked(one.replace(b"ttl=5", b"ttl=4"))
    assert masked(one) != masked(one.replace(b"hit", b"miss"))
    assert masked(one) != masked(one[:-1] + b"2")


def test_another_body_is_a_difference() -> None:
    """Two servers that give different content are told apart."""
    one = replies(_HEAD + b"content-length: 1\r\n\r\na")
    other = replies(_HEAD + b"transfer-encoding: chunked\r\n\r\n1\r\nb\r\n0\r\n\r\n")
    assert differences(_PLAIN, one, one) == []
    assert len(differences(_PLAIN, one, other)) == 1


def test_another_field_or_number_of_answers_is_a_difference() -> None:
    """A field that is missing, and an answer that is missing, are seen."""
    one = replies(_HEAD + b"set-cookie: a=1\r\ncontent-length: 1\r\n\r\na")
    other = replies(_HEAD + b"content-length: 1\r\n\r\na")
    assert len(differences(_PLAIN, one, other)) == 1
    assert len(differences(_PLAIN, [*other, *other], other)) == 1


def test_only_who_asked_for_it_may_get_a_304_or_a_part() -> None:
    """A 304 and a 206 stand for a 200 of a conditional or a range request, and for no other; a part has to fit."""
    whole = replies(_HEAD + b"content-length: 4\r\n\r\nabcd")
    unmodified = replies(b"HTTP/1.1 304 Not Modified\r\n\r\n")
    part = replies(b"HTTP/1.1 206 Partial Content\r\ncontent-range: bytes 1-2/4\r\ncontent-length: 2\r\n\r\nbc")
    wrong = replies(b"HTTP/1.1 206 Partial Content\r\ncontent-range: bytes 1-2/4\r\ncontent-length: 2\r\n\r\ncd")
    assert [differences(_RANGED, answer, whole) for answer in (unmodified, part)] == [[], []]
    assert len(differences(_RANGED, wrong, whole)) == 1
    assert [len(differences(_PLAIN, answer, whole)) for answer in (unmodified, part)] == [1, 1]
