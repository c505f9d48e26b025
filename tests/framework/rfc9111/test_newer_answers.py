"""What the app says next replaces what it said before, whether that can be kept or not, and under whatever key it is."""

from __future__ import annotations

from typing import Any

import pytest

from fastapi_cacheinval import CacheMiddleware, HTTPCache
from tests.helpers.http import ask, settle, until
from tests.helpers.origin import Origin

pytestmark = pytest.mark.anyio

OLD = {"cache-control": "max-age=600", "etag": '"old"'}
RELOAD = {"cache-control": "no-cache"}

# What the first answer says of queries, and the query of the newer one.
QUERIES = pytest.mark.parametrize(("rule", "query"), [(None, "?a=1"), ("params", "?a=1"), ("params", "?a=2")])
WITHDRAWN = pytest.mark.parametrize(
    ("status", "headers"),
    [
        (404, {}),
        (410, {}),
        (404, {"cache-control": "no-store", "no-vary-search": "params"}),
        (200, {"cache-control": "no-store"}),
        (200, {"cache-control": "private, max-age=60"}),
        (200, {"cache-control": "max-age=60", "set-cookie": "a=1"}),
        (302, {"location": "/elsewhere", "cache-control": "no-store"}),
    ],
)


def ruled(rule: str | None, headers: dict[str, str]) -> dict[str, str]:
    """Fields of an answer that says this of queries."""
    return headers if rule is None else {**headers, "no-vary-search": rule}


@QUERIES
@WITHDRAWN
async def test_what_a_reload_withdraws_is_a_hit_for_nobody(
    rule: str | None, query: str, status: int, headers: dict[str, str]
) -> None:
    """Also where it is stored for all equivalent queries."""
    origin = Origin()
    origin.says(ruled(rule, OLD), b"old")
    origin.says(headers, b"newer", status=status)
    await origin.get("/?a=1")
    await origin.get("/" + query, RELOAD)
    assert (await origin.get("/" + query)).body == b"newer"
    if rule is not None:
        assert (await origin.get("/?a=1")).body == b"newer"


@QUERIES
@WITHDRAWN
async def test_what_a_refresh_in_the_background_withdraws_is_served_stale_no_longer(
    rule: str | None, query: str, status: int, headers: dict[str, str]
) -> None:
    """The window is for what the app has not taken back."""
    origin = Origin()
    origin.says(ruled(rule, {"cache-control": "max-age=10, stale-while-revalidate=1000"}), b"old")
    origin.says(headers, b"newer", status=status)
    await origin.get("/?a=1")
    origin.clock.tick(20)
    assert (await origin.get("/" + query)).body == b"old"
    await settle()
    assert (await origin.get("/" + query)).body == b"newer"


@QUERIES
@WITHDRAWN
async def test_what_was_withdrawn_stands_in_for_no_error(
    rule: str | None, query: str, status: int, headers: dict[str, str]
) -> None:
    """An app that fails after it has said 404 fails as it would without a cache."""
    origin = Origin()
    origin.says(ruled(rule, {"cache-control": "max-age=10, stale-if-error=1000"}), b"old")
    origin.says(headers, b"newer", status=status)
    origin.says({}, b"failed", status=503)
    await origin.get("/?a=1")
    origin.clock.tick(20)
    assert (await origin.get("/" + query)).body == b"newer"
    assert (await origin.get("/" + query)).body == b"failed"


@QUERIES
async def test_a_304_that_forbids_storing_ends_what_is_served_stale(rule: str | None, query: str) -> None:
    """What it confirms is for the one request alone."""
    origin = Origin()
    origin.says(ruled(rule, {"cache-control": "max-age=10, stale-while-revalidate=1000", "etag": '"old"'}), b"old")
    origin.says({"cache-control": "no-store", "etag": '"old"'}, b"", status=304)
    origin.says({"cache-control": "no-store"}, b"newer")
    await origin.get("/?a=1")
    origin.clock.tick(20)
    await origin.get("/" + query)
    await settle()
    assert (await origin.get("/" + query)).body == b"newer"


@QUERIES
@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (404, {}),
        (200, {**OLD, "etag": '"new"'}),
        (200, {**OLD, "content-length": "99"}),
        (200, {**OLD, "cache-control": "no-store"}),
    ],
)
async def test_what_a_head_shows_to_be_outdated_is_a_hit_for_nobody(
    rule: str | None, query: str, status: int, headers: dict[str, str]
) -> None:
    """RFC 9111 section 4.3.5, also where it is stored for all equivalent queries."""
    origin = Origin()
    origin.says(ruled(rule, OLD), b"old")
    origin.says(headers, b"", status=status)
    origin.says(OLD, b"newer")
    await origin.get("/?a=1")
    await origin.get("/" + query, RELOAD, method="HEAD")
    assert (await origin.get("/" + query)).body == b"newer"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("between", [{"cache-control": "max-age=600"}, {**OLD, "no-vary-search": "key-order"}])
async def test_what_a_path_said_of_queries_before_is_not_forgotten_where_something_is_withdrawn(
    between: dict[str, str], method: str
) -> None:
    """An error page without the field, or with another rule, may come in between; the first rule may come again."""
    rule = 'params=("utm")'
    origin = Origin()
    origin.says(ruled(rule, OLD), b"old")
    origin.says(between, b"between", status=404)
    origin.says({"cache-control": "no-store"}, b"", status=404)
    origin.says(ruled(rule, OLD), b"another")
    origin.says(OLD, b"newer")
    await origin.get("/?id=1")
    await origin.get("/?id=2")
    await origin.get("/?id=1", RELOAD, method=method)
    await origin.get("/?id=3")
    assert (await origin.get("/?id=1")).body == b"newer"


async def test_a_page_that_begins_to_fold_queries_replaces_what_was_stored_for_the_one() -> None:
    """It is stored under another key, and the older one is found there no longer."""
    origin = Origin()
    origin.says(OLD, b"old")
    origin.says(ruled("params", OLD), b"newer")
    await origin.get("/?a=1")
    await origin.get("/?a=1", RELOAD)
    assert (await origin.get("/?a=1")).body == b"newer"
    assert origin.forwards == 2


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_page_that_is_renewed_with_a_rule_is_found_by_it(method: str) -> None:
    """A 304, or a HEAD, that brings the field stores it for all equivalent queries, and nothing is left beside it."""
    origin = Origin()
    origin.says(OLD, b"old")
    origin.says(ruled("params", OLD), b"", status=304 if method == "GET" else 200)
    await origin.get("/?a=1")
    await origin.get("/?a=1", RELOAD, method=method)
    for query in ("?a=1", "?a=2"):
        answer = await origin.get("/" + query)
        assert (answer.body, answer.fields("no-vary-search")) == (b"old", [b"params"])
    assert (origin.forwards, origin.cache.statistics().responses) == (2, 1)


async def test_what_a_post_stores_is_found_and_withdrawn_by_its_rule() -> None:
    """As what a GET stores."""
    origin = Origin()
    origin.says({**ruled("params", OLD), "content-location": "/?a=1"}, b"posted")
    origin.says({}, b"", status=404)
    await origin.get("/?a=1", method="POST")
    assert (await origin.get("/?a=2")).body == b"posted"
    await origin.get("/?a=2", RELOAD)
    assert (await origin.get("/?a=1")).status_code == 404


async def test_all_variants_that_would_answer_are_let_go_of() -> None:
    """A page whose `Vary` has changed may be stored twice for one request; neither outlives a 404."""
    origin = Origin()
    origin.says({**OLD, "vary": "x"}, b"older")
    origin.says({**OLD, "vary": "y"}, b"old")
    origin.says({}, b"gone", status=404)
    await origin.get()
    await origin.get(headers=RELOAD)
    await origin.get(headers=RELOAD)
    assert (await origin.get()).body == b"gone"


@QUERIES
@pytest.mark.parametrize("said", [True, False])
async def test_a_page_that_has_grown_too_large_is_not_a_hit_as_it_was(
    rule: str | None, query: str, *, said: bool
) -> None:
    """Whether its length is told before or not."""
    origin = Origin(max_body_bytes=1000)
    origin.says(ruled(rule, OLD), b"old")
    origin.says({**OLD, **({"content-length": "2000"} if said else {})}, chunks=[b"x" * 1000, b"x" * 1000])
    await origin.get("/?a=1")
    await origin.get("/" + query, RELOAD)
    assert len((await origin.get("/" + query)).body) == 2000


@QUERIES
async def test_a_page_that_has_outgrown_the_memory_is_not_a_hit_as_it_was(rule: str | None, query: str) -> None:
    """Also where the larger one would have been kept under another key."""
    origin = Origin(l1_max_bytes=64 * 1024, max_body_bytes=60_000)
    origin.says(ruled(rule, OLD), b"old")
    origin.says({**OLD, "vary": "x"}, b"x" * 60_000)
    await origin.get("/?a=1")
    await origin.get("/" + query, RELOAD)
    assert len((await origin.get("/" + query)).body) == 60_000


@pytest.mark.parametrize("rule", [None, "params"])
async def test_what_was_kept_of_a_response_whose_app_raises_is_taken_back(rule: str | None) -> None:
    """Its end may have been none: without a length only the app's return says that all is there."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        fields = [(name.encode(), value.encode()) for name, value in ruled(rule, OLD).items()]
        await send({"type": "http.response.start", "status": 200, "headers": fields})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
        await until(lambda: cache.statistics().responses == 1)
        raise RuntimeError("half of it")

    cache = HTTPCache()
    cached = CacheMiddleware(app, cache=cache, honour_headers=True)
    for _ in range(2):
        with pytest.raises(RuntimeError):
            await ask(cached, "/?a=1")
