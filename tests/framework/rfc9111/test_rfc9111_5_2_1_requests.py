"""RFC 9111 section 5.2.1: what a request may ask of a cache; RFC 5861 and 8246."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from fastapi_cacheinval import HeaderOptions
from tests.helpers.http import settle, until
from tests.helpers.origin import Origin

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("asks", "age", "hit"),
    [
        ({"cache-control": "no-cache"}, 0, False),
        ({"cache-control": "NO-CACHE"}, 0, False),
        ({"pragma": "no-cache"}, 0, False),
        ({"pragma": "no-cache", "cache-control": "max-age=60"}, 0, True),
        ({"pragma": "other"}, 0, True),
        ({"cache-control": "max-age=0"}, 0, False),
        ({"cache-control": "max-age=5"}, 4, True),
        ({"cache-control": "max-age=5"}, 6, False),
        ({"cache-control": "min-fresh=50"}, 9, True),
        ({"cache-control": "min-fresh=50"}, 11, False),
        ({"cache-control": "max-stale=5"}, 64, True),
        ({"cache-control": "max-stale=5"}, 66, False),
        ({"cache-control": "max-stale"}, 500, True),
        ({"cache-control": "max-age=5, max-stale"}, 64, False),
        ({"cache-control": "only-if-cached"}, 0, True),
        ({"cache-control": "no-transform, unheard-of=1"}, 0, True),
    ],
)
async def test_5_2_1_directives(asks: dict[str, str], age: int, hit: bool) -> None:
    """What a client asks for beyond the response's own 60 seconds."""
    origin = Origin()
    origin.says({"cache-control": "max-age=60"})
    await origin.get()
    origin.clock.tick(age)
    await origin.get(headers=asks)
    assert (origin.forwards == 1) is hit


@pytest.mark.parametrize("control", ["must-revalidate", "proxy-revalidate", "s-maxage=60", "no-cache"])
async def test_5_2_1_2_max_stale_does_not_override_what_forbids_stale(control: str) -> None:
    """Section 4.2.4: an explicit prohibition holds against any client's wish."""
    origin = Origin()
    origin.says({"cache-control": f"max-age=60, {control}", "etag": '"1"'})
    await origin.get()
    origin.clock.tick(61)
    await origin.get(headers={"cache-control": "max-stale, stale-if-error=600"})
    assert origin.forwards == 2


async def test_5_2_1_7_only_if_cached_is_a_504_where_nothing_is() -> None:
    """The origin is not asked."""
    origin = Origin()
    answer = await origin.get(headers={"cache-control": "only-if-cached"})
    assert (answer.status_code, answer.body, origin.forwards) == (504, b"", 0)
    assert answer.cache.detail == "only-if-cached"


@pytest.mark.parametrize(
    "more",
    [
        {"headers": {"if-match": "*"}},
        {"headers": {"if-unmodified-since": "Mon, 23 Nov 2020 11:59:03 GMT"}},
        {"headers": {"content-length": "1"}},
        {"method": "HEAD", "headers": {"if-match": "*"}},
    ],
    ids=str,
)
@pytest.mark.parametrize("stored", [False, True])
async def test_5_2_1_7_only_if_cached_forwards_nothing_that_a_cache_may_not_answer(
    more: dict[str, Any], stored: bool
) -> None:
    """What goes past the cache would else go to the origin, whatever is stored."""
    origin = Origin()
    origin.says({"cache-control": "max-age=60"})
    if stored:
        await origin.get()
    headers = {**more["headers"], "cache-control": "only-if-cached"}
    answer = await origin.get(**{**more, "headers": headers})
    assert (answer.status_code, answer.body, origin.forwards) == (504, b"", int(stored))
    assert (answer.cache.fwd, answer.cache.detail) == ("bypass", "only-if-cached")


async def test_5_2_1_directives_can_be_switched_off() -> None:
    """Then clients cannot send requests past the cache."""
    origin = Origin(HeaderOptions(request_directives=False))
    origin.says({"cache-control": "max-age=60"})
    await origin.get()
    for asks in ({"cache-control": "no-cache"}, {"pragma": "no-cache"}, {"cache-control": "max-age=0"}):
        assert (await origin.get(headers=asks)).cache.hit


async def test_5_2_1_4_a_forced_validation_renews_what_is_stored() -> None:
    """`no-cache` is answered by a 304 of the origin's, and the next client gains by it."""
    origin = Origin()
    origin.says({"cache-control": "max-age=60", "etag": "unquoted"}, b"kept")
    origin.says({"cache-control": "max-age=60"}, b"", status=304)
    await origin.get()
    origin.clock.tick(50)
    answer = await origin.get(headers={"cache-control": "no-cache"})
    assert (answer.body, origin.sent("if-none-match")) == (b"kept", [b"unquoted"])
    origin.clock.tick(50)
    assert (await origin.get()).cache.hit


async def test_rfc5861_3_stale_while_revalidate_serves_and_refreshes_once() -> None:
    """Within the window the stale answer comes at once and one validation runs behind it; past it, none."""
    origin = Origin()
    origin.says({"cache-control": "max-age=1, stale-while-revalidate=60", "etag": '"1"'}, b"old")
    origin.says({"cache-control": "max-age=1, stale-while-revalidate=60", "etag": '"2"'}, b"new")
    await origin.get()
    origin.clock.tick(5)
    origin.gate = asyncio.Event()
    stale = await origin.get(headers={"cookie": "a=1", "cache-control": "max-stale=0"})
    again = await origin.get()
    assert (stale.body, again.body) == (b"old", b"old")
    assert (stale.cache.hit, stale.cache.ttl < 0) == (True, True)
    await settle()
    assert origin.forwards == 2
    assert origin.sent("if-none-match") == [b'"1"']
    assert origin.sent("cache-control") == []
    origin.gate.set()
    await until(lambda: origin.cache.statistics().refreshes.get("stored") == 1)
    assert (await origin.get()).body == b"new"
    origin.clock.tick(100)
    before = origin.forwards
    assert (await origin.get()).body == b"new"
    assert origin.forwards == before + 1


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_rfc5861_4_stale_if_error_within_its_window(status: int) -> None:
    """A failing status is answered with what is stored, said as such, and not past the window."""
    origin = Origin()
    origin.says({"cache-control": "max-age=1, stale-if-error=60", "etag": '"1"'}, b"old")
    origin.says({}, b"sorry", status=status)
    await origin.get()
    origin.clock.tick(30)
    stale = await origin.get()
    assert (stale.status_code, stale.body, stale.cache.fwd, stale.cache.fwd_status) == (200, b"old", "stale", status)
    origin.clock.tick(60)
    assert (await origin.get()).status_code == status


async def test_rfc5861_4_stale_if_error_on_an_exception_and_by_the_request() -> None:
    """An app that raises is an error too, and a client may ask for the window itself."""
    origin = Origin()
    origin.says({"cache-control": "max-age=1"}, b"old")
    origin.says(error=RuntimeError("down"))
    await origin.get()
    origin.clock.tick(30)
    assert (await origin.get(headers={"cache-control": "stale-if-error=60"})).body == b"old"
    with pytest.raises(RuntimeError):
        await origin.get()


@pytest.mark.parametrize(
    ("control", "option", "served"),
    [
        ("max-age=1", 0, False),
        ("max-age=1", 60, True),
        ("max-age=1, must-revalidate", 60, False),
        ("max-age=1, proxy-revalidate", 60, False),
        ("max-age=1, no-cache", 60, False),
        ("s-maxage=1", 60, False),
        ("s-maxage=1, stale-if-error=60", 0, True),
        ("max-age=1, stale-if-error=60, must-revalidate", 0, False),
        ("max-age=1, stale-if-error=0", 60, False),
    ],
)
async def test_4_2_4_what_forbids_stale_answers(control: str, option: int, served: bool) -> None:
    """Without permission, or with a prohibition, an error is an error."""
    origin = Origin(HeaderOptions(stale_if_error=option))
    origin.says({"cache-control": control, "etag": '"1"'}, b"old")
    origin.says({}, b"sorry", status=503)
    await origin.get()
    origin.clock.tick(30)
    assert (await origin.get()).status_code == (200 if served else 503)


async def test_rfc5861_a_hard_purge_ends_both_windows() -> None:
    """What is known to be wrong is not served in place of an error, nor while refreshing."""
    origin = Origin()
    origin.says({"cache-control": "max-age=1, stale-if-error=60, stale-while-revalidate=60", "cache-tag": "t"}, b"old")
    origin.says({}, b"sorry", status=503)
    await origin.get()
    origin.clock.tick(5)
    await origin.cache.invalidate("t")
    assert (await origin.get()).status_code == 503


async def test_rfc8246_immutable_is_understood_and_changes_no_lifetime() -> None:
    """Fresh it is served, stale it is validated as ever."""
    origin = Origin()
    origin.says({"cache-control": "max-age=60, immutable", "etag": '"1"'})
    await origin.get()
    assert (await origin.get()).cache.hit
    origin.clock.tick(61)
    await origin.get()
    assert origin.sent("if-none-match") == [b'"1"']
