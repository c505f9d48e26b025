"""Whatever an app's headers say, in any combination: who gets a response that was made for another."""

from __future__ import annotations

from typing import Any

import anyio
import anyio.lowlevel
from hypothesis import given, settings
from hypothesis import strategies as st

from fastapi_cacheinval import CacheMiddleware, HTTPCache
from fastapi_cacheinval.testing import FakeClock
from tests.helpers.http import ask

DIRECTIVES = [
    "max-age=60", "s-maxage=60", "max-age=0", "public", "private", 'private="x-a"', "no-store", "no-cache",
    "must-revalidate", "proxy-revalidate", "must-understand", "immutable", "stale-if-error=60",
    "stale-while-revalidate=60", "unknown", "PRIVATE", "No-Store",
]  # fmt: skip
OTHERS = [
    ("set-cookie", "a=1"),
    ("vary", "Cookie"),
    ("vary", "authorization, accept"),
    ("vary", "*"),
    ("expires", "Thu, 18 Aug 2050 02:01:18 GMT"),
    ("last-modified", "Wed, 01 Jan 2020 00:00:00 GMT"),
    ("etag", '"1"'),
    ("cache-groups", '"g"'),
    ("no-vary-search", "params"),
]
CALLERS = st.fixed_dictionaries(
    {},
    optional={
        "authorization": st.sampled_from(["alice", "bob"]),
        "cookie": st.sampled_from(["a", "b"]),
        "cache-control": st.sampled_from(["no-cache", "max-stale", "no-store", "min-fresh=5"]),
        "range": st.just("bytes=0-0"),
        "if-none-match": st.just('"1"'),
    },
)


def allowed(says: list[tuple[str, str]], first: dict[str, str], second: dict[str, str], path: bool) -> bool:
    """What RFC 9111 lets a shared cache give to the second caller, read off the headers in the plainest way."""
    words = {word.strip().lower() for name, value in says if name == "cache-control" for word in value.split(",")}
    names = [name for name, _ in says]
    varies = " ".join(value for name, value in says if name == "vary").lower()
    if "private" in words or ("no-store" in words and "must-understand" not in words):
        return False
    if "set-cookie" in names or "*" in varies or "no-store" in first.get("cache-control", ""):
        return False
    if ("authorization" in first or "authorization" in second) and not words & {
        "public",
        "s-maxage=60",
        "must-revalidate",
    }:
        return False
    if "cookie" in varies and first.get("cookie") != second.get("cookie"):
        return False
    if "authorization" in varies and first.get("authorization") != second.get("authorization"):
        return False
    return path or "no-vary-search" in names


@settings(max_examples=300)
@given(
    directives=st.lists(st.sampled_from(DIRECTIVES), max_size=3, unique=True),
    others=st.lists(st.sampled_from(OTHERS), max_size=3, unique=True),
    first=CALLERS,
    second=CALLERS,
    same_path=st.booleans(),
    at_once=st.booleans(),
    pause=st.sampled_from([0, 90]),
)
def test_a_response_reaches_another_caller_only_where_it_says_that_it_may(
    directives: list[str],
    others: list[tuple[str, str]],
    first: dict[str, str],
    second: dict[str, str],
    same_path: bool,
    at_once: bool,
    pause: int,
) -> None:
    """One after the other or at the same time, fresh or stale: the second has the first's only if all rules allow."""
    says = [("cache-control", directive) for directive in directives] + others
    headers = [(name.encode(), value.encode()) for name, value in says]
    made = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal made
        made += 1
        mine = b"%d" % made
        await anyio.lowlevel.checkpoint()
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": mine})

    async def both() -> list[Any]:
        clock = FakeClock()
        cached = CacheMiddleware(app, cache=HTTPCache(clock=clock), honour_headers=True)
        answers: list[Any] = [None, None]

        async def one(index: int, path: str, caller: dict[str, str]) -> None:
            answers[index] = await ask(cached, path, headers=caller)

        if at_once:
            async with anyio.create_task_group() as group:
                group.start_soon(one, 0, "/?x=1", first)
                group.start_soon(one, 1, "/?x=1" if same_path else "/?x=2", second)
        else:
            await one(0, "/?x=1", first)
            clock.tick(pause)
            await one(1, "/?x=1" if same_path else "/?x=2", second)
        return answers

    answers = anyio.run(both)
    if made == 1:
        assert allowed(says, first, second, same_path), [answer.raw for answer in answers]
