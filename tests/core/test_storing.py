"""What may never be stored (RFC 9111 section 3 and more), and what a stored response is made of."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastapi_cacheinval import CachePolicy
from fastapi_cacheinval.core.stored import Stamp
from fastapi_cacheinval.core.storing import Recipe, content_length, refusal, stored_response, streamed_fields
from fastapi_cacheinval.core.tags import ALL, path_tag

POLICY = CachePolicy(60, statuses={200, 404})


def refused(*lines: tuple[bytes, bytes], status: int = 200, partitioned: bool = False, most: int = 100) -> str | None:
    """Why a response with these fields is not stored."""
    return refusal(status, lines, POLICY, partitioned=partitioned, most_bytes=most)


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ([], None),
        ([(b"set-cookie", b"a=b")], "set-cookie"),
        ([(b"set-cookie", b"")], "set-cookie"),
        ([(b"content-range", b"bytes 0-1/10")], "content-range"),
        ([(b"vary", b"*")], "vary"),
        ([(b"vary", b"accept, *")], "vary"),
        ([(b"vary", b"accept"), (b"vary", b" * ")], "vary"),
        ([(b"vary", b"accept")], None),
        ([(b"vary", b"not a token")], "vary"),
        ([(b"content-type", b"text/event-stream")], "event-stream"),
        ([(b"content-type", b"Text/Event-Stream; charset=utf-8")], "event-stream"),
        ([(b"content-length", b"100")], None),
        ([(b"content-length", b"101")], "too-large"),
        ([(b"cache-control", b"no-store")], "no-store"),
        ([(b"cache-control", b"NO-STORE")], "no-store"),
        ([(b"cache-control", b"max-age=60"), (b"cache-control", b"public,no-store")], "no-store"),
        ([(b"cache-control", b"private")], "private"),
        ([(b"cache-control", b'private="set-cookie"')], "private"),
        ([(b"cache-control", b"no-cache, max-age=0")], None),
        ([(b"cache-control", b"unknown, x=no-store")], None),
    ],
)
def test_what_may_never_be_stored_is_refused_with_its_reason(
    lines: list[tuple[bytes, bytes]], reason: str | None
) -> None:
    """Each reason alone; directives are for downstream and pass, but for `no-store` and `private`."""
    assert refused(*lines) == reason


def test_private_may_be_kept_inside_a_partition_and_no_store_nowhere() -> None:
    """A partition is private to its principal; `no-store` is for everybody."""
    assert refused((b"cache-control", b"private"), partitioned=True) is None
    assert refused((b"cache-control", b"private, no-store"), partitioned=True) == "no-store"
    assert refused((b"set-cookie", b"a=b"), partitioned=True) == "set-cookie"


@given(st.integers(100, 599))
def test_only_the_policys_statuses_are_stored(status: int) -> None:
    """A 401, a 500, a redirect: refused unless it is listed."""
    assert (refused(status=status) is None) == (status in {200, 404})


def test_a_status_that_lives_for_nothing_is_not_stored() -> None:
    """A mapping may switch one off."""
    policy = CachePolicy(60, statuses={200: 60, 404: 0})
    assert refusal(404, (), policy, partitioned=False, most_bytes=1) == "status"


@pytest.mark.parametrize(
    ("value", "length"),
    [(b"0", 0), (b"42", 42), (b"-1", None), (b"+1", None), (b"4 2", None), (b"", None), (b"9" * 40, None)],
)
def test_a_declared_length_is_a_number_or_nothing(value: bytes, length: int | None) -> None:
    """What is no `1*DIGIT`, or no length of anything, never raises and never limits."""
    assert content_length([(b"content-length", value)]) == length


STAMP = Stamp(0, 7, 0, 1.0)


def recipe(**changes: Any) -> Recipe:
    """The request's side of a fill that began at 1."""
    fields: dict[str, Any] = {
        "key": b"k" * 32,
        "policy": CachePolicy(60, tags=["t"], stale_while_revalidate=5, stale_if_error=9),
        "tags": ("t",),
        "declared": (),
        "request_headers": [(b"accept", b"a")],
        "path": "/p",
        "private": False,
        "anonymous": True,
        "stamp": STAMP,
        "began": 1.0,
        "emit_surrogate_key": True,
        **changes,
    }
    known = {name: value for name, value in fields.items() if name in Recipe.__dataclass_fields__}
    return Recipe(**known)


def made(*lines: tuple[bytes, bytes], status: int = 200, draw: float = 0.5, **changes: Any) -> Any:
    """The response that is kept when the app has answered at 3 with these fields."""
    stored, _ = stored_response(recipe(**changes), status, lines, b"body", ("added",), now=3.0, wall_now=1e9, draw=draw)
    return stored


def test_a_stored_response_carries_every_tag_it_can_be_purged_by() -> None:
    """The policy's, those added, those of `Surrogate-Key`, the path's and everything's; each once."""
    stored = made((b"surrogate-key", b"named added"))
    assert stored.tags == ("t", "added", "named", path_tag("/p"), ALL)
    shown = [value for name, value in stored.headers if name == b"surrogate-key"]
    assert shown == [b"t added named"]


@given(draw=st.floats(0, 1, exclude_max=True))
def test_its_life_is_the_policys_from_now_and_its_stamp_the_fills(draw: float) -> None:
    """Jitter shortens by at most a tenth; the stamp is that of the request, from before its dependencies ran."""
    stored = made(draw=draw)
    assert 3.0 + 54 - 1e-9 <= stored.fresh_until <= 3.0 + 60
    assert stored.stamp is STAMP
    assert stored.fill_seconds == 2.0
    assert stored.usable_until == stored.fresh_until + 9


def test_a_status_with_its_own_ttl_lives_that_long() -> None:
    """A mapping's 404 lives 5 s beside a 200 of 60."""
    policy = CachePolicy(60, jitter=0, statuses={200: 60, 404: 5})
    assert made(status=404, policy=policy).fresh_until == 8.0
    assert made(status=200, policy=policy).fresh_until == 63.0


@pytest.mark.parametrize("directive", [b"must-revalidate", b"proxy-revalidate", b"public, MUST-REVALIDATE"])
def test_must_revalidate_ends_its_use_with_its_freshness(directive: bytes) -> None:
    """It may not be served stale, so it is not kept for that either."""
    stored = made((b"cache-control", directive))
    assert stored.must_revalidate
    assert stored.usable_until == stored.fresh_until


def test_fields_keep_their_order_duplicates_and_bytes() -> None:
    """What the app sent comes first and as it was; hop-by-hop fields and another cache's age are not kept."""
    lines = [
        (b"x-b", b"2"),
        (b"content-type", b"text/plain"),
        (b"link", b"<a>"),
        (b"connection", b"close, x-hop"),
        (b"x-hop", b"1"),
        (b"link", b"<b>"),
        (b"x-b", b"\xff raw "),
        (b"age", b"10"),
    ]
    names = [pair for pair in made(*lines).headers if pair in lines]
    assert names == [lines[0], lines[1], lines[2], lines[5], lines[6]]
    # RFC 9111 section 4.2.3: it was that old when it came.
    assert made((b"age", b"10")).created == 3.0 - 10


@pytest.mark.parametrize("age", [b"-5", b"x", b"", b"9" * 30, b"1.5"])
def test_an_unreadable_age_counts_as_none(age: bytes) -> None:
    """A handler's nonsense never raises and never makes a response old or young."""
    assert made((b"age", age)).created == 3.0


def test_downstream_is_told_to_revalidate_unless_somebody_says_otherwise() -> None:
    """`no-cache` for all, `private, no-cache` behind a cover, the policy's word before it, the handler's before all."""
    said = {
        b"no-cache": made(),
        b"private, no-cache": made(private=True),
        b"max-age=5": made(policy=CachePolicy(60, cache_control="max-age=5")),
        b"max-age=9": made((b"cache-control", b"max-age=9"), policy=CachePolicy(60, cache_control="max-age=5")),
    }
    for value, stored in said.items():
        assert [each for name, each in stored.headers if name == b"cache-control"] == [value]


def test_an_etag_is_made_of_the_bytes_and_the_handlers_own_is_kept() -> None:
    """Equal bytes, equal tag; one that is no entity tag is passed on and never compared."""
    assert made().etag == made().etag is not None
    own = made((b"etag", b'W/"1"'))
    assert own.etag == b'W/"1"'
    broken = made((b"etag", b"unquoted"))
    assert broken.etag is None
    assert (b"etag", b"unquoted") in broken.headers


def test_a_streamed_first_answer_has_the_fields_but_neither_length_nor_etag() -> None:
    """Its bytes are not known when it begins; everything else is as it is stored."""
    fields = dict(streamed_fields(recipe(), [(b"x-a", b"1")], ("added",)))
    assert fields[b"x-a"] == b"1"
    assert fields[b"surrogate-key"] == b"t added"
    assert fields[b"cache-control"] == b"no-cache"
    assert not {b"etag", b"content-length"} & fields.keys()


def test_declared_headers_are_written_into_vary_and_select_the_variant() -> None:
    """A handler's `Header()` splits downstream caches, too."""
    stored, chosen = stored_response(
        recipe(declared=(b"accept",)), 200, [(b"vary", b"x-a")], b"", (), now=3.0, wall_now=1e9, draw=0
    )
    assert [value for name, value in stored.headers if name == b"vary"] == [b"x-a, accept"]
    assert {name for name, _ in chosen} == {b"accept", b"x-a"}
    assert stored.key != recipe().key
