"""A CDN has purged when its answer says what its documentation says, and not before; a wrong token is no bad tag."""

from __future__ import annotations

import json
from typing import Any

import pytest
from starlette.responses import JSONResponse

from fastapi_cacheinval.contrib.cdn import (
    CDN,
    Answer,
    Cloudflare,
    Done,
    Fastly,
    Purge,
    Refused,
    Retry,
    Varnish,
    Webhook,
)
from tests.contrib.cdn.fakes import TOKEN, FakeCloudflare, FakeFastly, serving
from tests.contrib.cdn.purging import cloudflare, fastly, purging, state_of
from tests.helpers.fleet import eventually

pytestmark = pytest.mark.anyio

KEYS = ("a", "b", "token:5", "api_key:7")
FASTLY, CLOUDFLARE = Fastly("abc", TOKEN), Cloudflare("abc", TOKEN)
VARNISH, WEBHOOK = Varnish("http://varnish:6081/"), Webhook("https://example.com/hook")
IDS = {key: f"108-1391560174-{number}" for number, key in enumerate(KEYS)}
ZONE = {"success": True, "errors": [], "messages": [], "result": {"id": "abc"}}


def judged(cdn: CDN, status: int, body: Any = None, everything: bool = False, **headers: str) -> Any:
    (request,) = cdn.requests(Purge(everything=True) if everything else Purge(KEYS))
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return cdn.judge(request, Answer(status, {name.replace("_", "-"): text for name, text in headers.items()}, data))


CONFIRMED: list[Any] = [
    (FASTLY, IDS, False, {}),
    (FASTLY, {**IDS, "another": "1-2-3"}, False, {}),
    (FASTLY, {"status": "ok"}, True, {}),
    (CLOUDFLARE, ZONE, False, {}),
    (CLOUDFLARE, {**ZONE, "result": None}, True, {}),
    (VARNISH, b"", False, {"xkey_purged": "0"}),
    (VARNISH, b"", True, {"xkey_purged": "everything"}),
]
UNCONFIRMED: list[Any] = [
    (FASTLY, {}, False, {}),
    (FASTLY, {"status": "ok"}, False, {}),
    (FASTLY, {"status": "ok", "id": "1-2-3"}, False, {}),
    (FASTLY, {"msg": "Provided credentials are missing or invalid"}, False, {}),
    (FASTLY, dict.fromkeys(KEYS, ""), False, {}),
    (FASTLY, dict.fromkeys(KEYS, "an error occurred"), False, {}),
    (FASTLY, dict.fromkeys(KEYS, "error"), False, {}),
    (FASTLY, dict.fromkeys(KEYS), False, {}),
    (FASTLY, dict.fromkeys(KEYS, 5), False, {}),
    (FASTLY, dict(list(IDS.items())[:2]), False, {}),
    (FASTLY, list(IDS), False, {}),
    (FASTLY, b"OK", False, {}),
    (FASTLY, {}, True, {}),
    (FASTLY, {"status": "error"}, True, {}),
    (FASTLY, {"msg": "Record not found"}, True, {}),
    (CLOUDFLARE, {}, False, {}),
    (CLOUDFLARE, {"result": {"id": "abc"}}, False, {}),
    (CLOUDFLARE, {**ZONE, "success": 1}, False, {}),
    (CLOUDFLARE, {**ZONE, "success": "true"}, False, {}),
    (CLOUDFLARE, {**ZONE, "success": False}, False, {}),
    (CLOUDFLARE, {**ZONE, "errors": [{"code": 1134, "message": "Unable to purge"}]}, False, {}),
    (CLOUDFLARE, b"success", False, {}),
    (VARNISH, b"", False, {}),
    (VARNISH, b"Purged", False, {"xkey_purged": ""}),
    (VARNISH, b"", False, {"xkey_purged": "-1"}),
]  # fmt: skip


@pytest.mark.parametrize(("cdn", "body", "everything", "headers"), CONFIRMED)
def test_what_the_documentation_says_confirms(cdn: CDN, body: Any, everything: bool, headers: dict[str, str]) -> None:
    """An id for each key, a status, a success without errors, a count."""
    assert judged(cdn, 200, body, everything, **headers) == Done()


@pytest.mark.parametrize(("cdn", "body", "everything", "headers"), UNCONFIRMED)
def test_any_other_200_confirms_nothing(cdn: CDN, body: Any, everything: bool, headers: dict[str, str]) -> None:
    """Nothing at all, an error's text, half of the keys: the purge is kept."""
    assert isinstance(judged(cdn, 200, body, everything, **headers), Retry | Refused)


def test_half_of_the_keys_are_split_and_nothing_else_is_lost() -> None:
    """The keys that are missing from the answer are found, and do not hold up the others."""
    assert judged(FASTLY, 200, dict(list(IDS.items())[:2])) == Refused(
        "Fastly answered 200 for 2 of 4 keys", by_tag=True
    )


def error(*codes: int, message: str = "no", chain: tuple[int, ...] = ()) -> dict[str, Any]:
    chained = [{"code": code, "message": "no"} for code in chain]
    errors = [{"code": code, "message": message, "error_chain": chained} for code in codes]
    return {"success": False, "errors": errors, "messages": [], "result": None}


OF_ACCESS: list[Any] = [
    (FASTLY, 401, {"msg": "Provided credentials are missing or invalid"}),
    (FASTLY, 400, {"msg": "Provided credentials are missing or invalid"}),
    (FASTLY, 400, {"msg": "Bad request", "detail": "You are not authorized to perform this action"}),
    (FASTLY, 403, {}),
    (FASTLY, 400, b"<html>Authentication is missing</html>"),
    (CLOUDFLARE, 400, b"<html>Authentication is missing</html>"),
    (CLOUDFLARE, 400, {"success": False, "errors": [{"code": "10000", "message": "no"}]}),
    (CLOUDFLARE, 400, error(10000, message="Authentication error")),
    (CLOUDFLARE, 400, error(6003, message="Invalid request headers", chain=(6111,))),
    (CLOUDFLARE, 400, error(7000, chain=(6103,))),
    (CLOUDFLARE, 400, error(9109)),
    (CLOUDFLARE, 400, error(1, message="Unable to authenticate request")),
    (CLOUDFLARE, 200, error(10000, message="Authentication error")),
    (CLOUDFLARE, 403, error(10000)),
    (VARNISH, 403, b""),
    (VARNISH, 401, b""),
    (WEBHOOK, 400, b"invalid API token"),
    (WEBHOOK, 401, b""),
    (WEBHOOK, 422, {"error": "missing signature"}),
]


@pytest.mark.parametrize(("cdn", "status", "body"), OF_ACCESS)
def test_an_error_about_who_asks_is_not_split(cdn: CDN, status: int, body: Any) -> None:
    """Whatever status it comes with: nobody asks for single tags with a token that is wrong."""
    verdict = judged(cdn, status, body)
    assert isinstance(verdict, Refused)
    assert not verdict.by_tag


OF_TAGS: list[Any] = [
    (FASTLY, 400, {"msg": "Bad request", "detail": "a surrogate key is not valid: api_key:7"}),
    (FASTLY, 400, b""),
    (CLOUDFLARE, 400, error(1096, message="Invalid tag: token:5 api_key:7")),
    (CLOUDFLARE, 400, error(1094, message="You may only purge 100 tags at once")),
    (WEBHOOK, 422, b"bad tag api_key:7"),
]


@pytest.mark.parametrize(("cdn", "status", "body"), OF_TAGS)
def test_an_error_that_repeats_a_tag_is_about_the_tag(cdn: CDN, status: int, body: Any) -> None:
    """Also where the tag, which a client may have chosen, has the name of a credential."""
    verdict = judged(cdn, status, body)
    assert isinstance(verdict, Refused)
    assert verdict.by_tag


async def test_fifty_tags_and_a_wrong_token_are_few_requests() -> None:
    """A CDN that answers 400 to a wrong token is asked with all tags again, not with each."""
    with serving(FakeCloudflare()) as fake:
        fake.said = lambda status, code, message, **headers: FakeCloudflare.said(  # type: ignore[method-assign]
            fake, 400 if status == 403 else status, code, message, **headers
        )
        fake.token = "another"
        async with purging(cloudflare(fake), bound=0.3) as (cache, _):
            await cache.invalidate(*(f"tag-{number}" for number in range(50)))
            await eventually(lambda: state_of(cache).trouble, "the trouble")
            assert "token" in state_of(cache).trouble
            assert len(fake.requests) == 1
            assert (state_of(cache).refused, state_of(cache).waiting) == (0, 50)


async def test_keys_that_an_answer_leaves_out_are_purged_by_themselves() -> None:
    """Fastly tells half of the keys once: the purge goes out again, and is done when all are told."""
    with serving(FakeFastly()) as fake:
        answer = fake.answer

        def half(request: Any, body: bytes) -> Any:
            said = json.loads(bytes(answer(request, body).body))
            fake.answer = answer  # type: ignore[method-assign]
            fake.purged.clear()
            return JSONResponse(dict(list(said.items())[::2]))

        fake.answer = half  # type: ignore[method-assign]
        async with purging(fastly(fake)) as (cache, purger):
            await purger.purge(await cache.invalidate(*(f"tag-{number}" for number in range(10))))
            assert set(fake.keys) == {f"tag-{number}" for number in range(10)}
            await eventually(lambda: not state_of(cache).waiting, "the end")
            assert (state_of(cache).refused, state_of(cache).failures) == (0, 1)
