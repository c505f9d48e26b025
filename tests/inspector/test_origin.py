"""Nothing is purged but by the inspector's own page."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from fastapi_cacheinval.inspector.origin import COOKIE, FIELD, new_token, token_in, why_foreign
from tests.inspector.inspected import Inspected

pytestmark = pytest.mark.anyio

EVERYTHING = {"everything": True}
OTHER = "A" * 43


async def page() -> Inspected:
    """A page that is loaded, and one stored response."""
    inspected = Inspected()
    await inspected.shop.ask("/items/1")
    await inspected.load()
    return inspected


async def test_the_page_purges() -> None:
    """With its token, its cookie and its origin a purge is made, and says what became of it."""
    inspected = await page()
    answer = await inspected.purge(EVERYTHING)
    assert answer.status_code == 200
    assert b'"became":"done"' in answer.body
    assert inspected.shop.cache.statistics().purges == {"published": 1}
    await inspected.shop.ask("/items/1")
    assert inspected.shop.calls == 2


FOREIGN: list[dict[str, str]] = [
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"},
    {"sec-fetch-site": "none"},
    {"sec-fetch-site": "nonsense"},
    {"sec-fetch-site": "", "origin": "https://evil.test"},
    {"sec-fetch-site": "", "origin": "null"},
    {"sec-fetch-site": "", "origin": "http://localhost:9000"},
    {"sec-fetch-site": "", "origin": "http://localhost.evil.test"},
    {"sec-fetch-site": "", "origin": "http://[localhost"},
    {"sec-fetch-site": "", "origin": "file://localhost"},
    {"x-cacheinval-inspector": ""},
    {"x-cacheinval-inspector": OTHER},
    {"x-cacheinval-inspector": "ä"},
    {"cookie": ""},
    {"cookie": f"{COOKIE}={OTHER}"},
    {"cookie": f"{COOKIE}=", "x-cacheinval-inspector": ""},
    {"cookie": f"{COOKIE}=short", "x-cacheinval-inspector": "short"},
]


@pytest.mark.parametrize("other", FOREIGN, ids=str)
@pytest.mark.parametrize(
    "body", [EVERYTHING, {"tags": ["items"]}, {"url": "/items/1", "soft": True}], ids=["all", "tags", "url"]
)
async def test_a_request_that_is_not_the_pages_is_refused(other: dict[str, str], body: Any) -> None:
    """Another site, another token, another cookie, none of them: 403, and nothing is purged."""
    inspected = await page()
    answer = await inspected.purge(body, headers=other)
    assert answer.status_code == 403
    assert inspected.shop.cache.statistics().purges == {}


@pytest.mark.parametrize(
    "same",
    [
        {"sec-fetch-site": "same-origin", "origin": "https://shop.example"},
        {"sec-fetch-site": "", "origin": "http://localhost"},
        {"sec-fetch-site": "", "origin": "http://LOCALHOST:80"},
        {"sec-fetch-site": ""},
    ],
    ids=["behind-a-proxy", "origin", "spelled-otherwise", "no-browser"],
)
async def test_the_same_origin_has_many_spellings(same: dict[str, str]) -> None:
    """What the browser says comes first: a proxy may have changed the host. What is no browser needs the token alone."""
    inspected = await page()
    assert (await inspected.purge(EVERYTHING, headers=same)).status_code == 200


@pytest.mark.parametrize(
    "kind", ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"]
)
async def test_what_a_form_can_send_is_refused(kind: str) -> None:
    """A purge is JSON, which no form of another site can send without being asked first."""
    inspected = await page()
    assert (await inspected.purge(EVERYTHING, headers={"content-type": kind})).status_code == 415
    assert inspected.shop.cache.statistics().purges == {}


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
async def test_only_a_post_purges(method: str) -> None:
    """No other method does, least of all one that a link can send."""
    inspected = await page()
    answer = await inspected.get("/api/purge", method=method)
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")


async def test_the_page_keeps_its_token() -> None:
    """A second tab has the token of the first: both can purge."""
    inspected = await page()
    again = await inspected.get(headers={"cookie": f"other=1; {inspected.cookie}"})
    assert inspected.token.encode() in again.body
    assert (await inspected.purge(EVERYTHING)).status_code == 200


async def test_the_cookie_is_for_the_page_alone() -> None:
    """No script reads it, no other site sends it, and over TLS it goes over TLS alone."""
    inspected = Inspected()
    plain = (await inspected.load()).headers["set-cookie"]
    assert plain.endswith("; HttpOnly; SameSite=Strict")
    assert (await inspected.get(scheme="https")).headers["set-cookie"].endswith("; HttpOnly; SameSite=Strict; Secure")


async def test_a_cookie_of_another_form_is_not_written_into_the_page() -> None:
    """Only what this page can have made comes back in it."""
    hostile = '"><script>alert(1)</script>'
    answer = await Inspected().get(headers={"cookie": f"{COOKIE}={hostile}"})
    assert hostile.encode() not in answer.body
    assert hostile not in answer.headers["set-cookie"]


def test_tokens_differ_and_are_recognised() -> None:
    """Each is new, and is found in a cookie."""
    first, second = new_token(), new_token()
    assert first != second
    assert token_in(f"a=b; {COOKIE}={first}; c=d") == first


@given(st.dictionaries(st.sampled_from(["origin", "host", "cookie", "sec-fetch-site", FIELD]), st.text(max_size=80)))
def test_whatever_is_sent_without_the_token_is_foreign(fields: dict[str, str]) -> None:
    """No fields raise, and none that do not repeat one good token pass."""
    raw = [(name.encode(), value.encode("utf-8")) for name, value in fields.items()]
    assert why_foreign(Headers(raw=raw)) is not None
