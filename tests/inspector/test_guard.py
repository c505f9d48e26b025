"""Nobody sees the inspector whom its guard has not let through."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Header, HTTPException, Request
from fastapi.security import HTTPBasic, HTTPBasicCredentials
from starlette.applications import Starlette
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.responses import PlainTextResponse
from starlette.routing import Mount

from fastapi_cacheinval import ConfigurationError, HTTPCache
from fastapi_cacheinval.inspector import Inspector
from tests.helpers.http import ask, until
from tests.inspector.inspected import Inspected, listed

pytestmark = pytest.mark.anyio

PATHS = ["/", "/static/inspector.js", "/static/inspector.css", "/api/state", "/api/contents", "/api/routes", "/nothing"]
KEY = {"x-key": "open"}


async def by_key(request: Request) -> None:
    if request.headers.get("x-key") != "open":
        raise HTTPException(401, "sign in first", {"WWW-Authenticate": "Basic"})


def plain_by_key(request: Request) -> None:
    if request.headers.get("x-key") != "open":
        raise StarletteHTTPException(401, "sign in first", {"WWW-Authenticate": "Basic"})


async def caller(x_key: Annotated[str, Header()] = "") -> str:
    return x_key


async def by_dependency(key: Annotated[str, Depends(caller)]) -> None:
    if key != "open":
        raise HTTPException(401, "sign in first", {"WWW-Authenticate": "Basic"})


BASIC = HTTPBasic()


async def administrator(who: Annotated[HTTPBasicCredentials, Depends(BASIC)]) -> None:
    if who.password != "right":
        raise HTTPException(403, "administrators only")


class ByObject:
    def __call__(self, request: Request) -> None:
        plain_by_key(request)


def unannotated(request):  # type: ignore[no-untyped-def]
    plain_by_key(request)


GUARDS: list[Any] = [by_key, plain_by_key, by_dependency, ByObject(), unannotated]


@pytest.mark.parametrize("guard", GUARDS, ids=["async", "plain", "dependency", "object", "unannotated"])
@pytest.mark.parametrize("path", [*PATHS, "/api/events"])
async def test_what_the_guard_refuses_is_answered_with_its_refusal(guard: Any, path: str) -> None:
    """Every path is behind the guard, its refusal has its own status and fields, and nothing else is in the answer."""
    refused = await Inspected(guard=guard).get(path)
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"] == "Basic"
    assert b"sign in first" in refused.body
    assert len(refused.body) < 60
    assert refused.headers["cache-control"].startswith("no-store")


@pytest.mark.parametrize("guard", GUARDS, ids=["async", "plain", "dependency", "object", "unannotated"])
async def test_whom_the_guard_lets_through_sees_the_page(guard: Any) -> None:
    """A guard that raises nothing lets a request pass, from wherever it comes."""
    seen = await Inspected(guard=guard).get(headers=KEY, client=("203.0.113.7", 1), host="shop.example")
    assert seen.status_code == 200
    assert b"Cache inspector" in seen.body


@pytest.mark.parametrize(
    ("answer", "status"), [(None, 200), (True, 200), ("alice", 200), (False, 403), ("", 403), (0, 403)]
)
async def test_a_guard_that_returns_something_false_refuses(answer: Any, status: int) -> None:
    """`return user.is_admin` works as it reads; None is what a guard without a result gives."""
    assert (await Inspected(guard=lambda request: answer).get()).status_code == status


async def test_a_dependency_is_called_as_fastapi_calls_it() -> None:
    """A guard of the app's routes guards the inspector too, with the dependencies below it and its own class."""
    inspected = Inspected(guard=administrator)
    assert (await inspected.get()).status_code == 401
    wrong, right = "Basic YWRtaW46d3Jvbmc=", "Basic YWRtaW46cmlnaHQ="
    assert (await inspected.get(headers={"authorization": wrong})).status_code == 403
    assert (await inspected.get(headers={"authorization": right})).status_code == 200


async def test_what_a_guard_holds_is_let_go_before_the_answer() -> None:
    """A stream that is open for minutes keeps no session of the guard's dependencies."""
    held: list[str] = []

    async def session() -> AsyncIterator[str]:
        held.append("session")
        yield "session"
        held.remove("session")

    async def guard(found: Annotated[str, Depends(session)]) -> None:
        assert held == [found]

    inspected = Inspected(guard=guard)
    stream = inspected.watch()
    await until(lambda: stream.started, "the stream")
    assert held == []
    stream.go_away()
    await stream.answer()


async def test_the_guard_sees_the_request_and_its_app() -> None:
    """State, path and app of the request are those of the app that the inspector is mounted in."""
    seen: list[Any] = []

    async def guard(request: Request) -> None:
        seen.append((request.app, request.url.path, request.method))

    inspected = Inspected(guard=guard)
    await inspected.get("/api/state")
    assert seen == [(inspected.shop.app, "/_cache/api/state", "GET")]


async def test_a_refused_purge_purges_nothing_and_reads_nothing() -> None:
    """The guard stands in front of what changes something as well, and is not handed the body."""
    inspected = Inspected(guard=by_key)
    await inspected.shop.ask("/items/1")
    assert (await inspected.purge({"everything": True})).status_code == 401
    assert inspected.shop.cache.statistics().purges == {}


async def test_a_guard_may_let_somebody_see_who_may_not_purge() -> None:
    """The guard is told the method and the path of each request: to look and to purge are two things."""

    async def reader(request: Request) -> None:
        if request.method == "POST":
            raise HTTPException(403, "look, and do not touch")

    inspected = Inspected(guard=reader)
    await inspected.load()
    answer = await inspected.purge({"everything": True})
    assert answer.status_code == 403
    assert b"do not touch" in answer.body
    assert inspected.shop.cache.statistics().purges == {}


async def test_errors_that_the_app_knows_are_answered_by_the_app() -> None:
    """An exception of the app's own goes to its handler, as from a route; a refusal does as well where it has one."""
    inspected = Inspected(guard=_own_error)

    @inspected.shop.app.exception_handler(_OwnError)
    async def handle(request: Request, error: Exception) -> PlainTextResponse:
        return PlainTextResponse("sign in at /login", 418)

    assert (await inspected.get()).status_code == 418
    inspected = Inspected(guard=by_key)

    @inspected.shop.app.exception_handler(HTTPException)
    async def redirect(request: Request, error: Exception) -> PlainTextResponse:
        return PlainTextResponse("", 303, {"location": "/login"})

    answer = await inspected.get()
    assert (answer.status_code, answer.headers["location"]) == (303, "/login")
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")


class _OwnError(Exception):
    pass


async def _own_error(request: Request) -> None:
    raise _OwnError


async def test_a_guard_whose_request_lacks_something_refuses() -> None:
    """A part of the request that the guard's dependency needs, and that is not there, is no way in."""

    async def guard(x_key: Annotated[str, Header()]) -> None: ...

    assert (await Inspected(guard=guard).get()).status_code == 422
    alone = Inspector(HTTPCache(), guard=guard)
    assert (await ask(alone, "/")).status_code == 422
    assert (await ask(alone, "/", headers=KEY)).status_code == 200


# -- without a guard -------------------------------------------------------------------------------


def test_it_does_not_start_without_a_guard() -> None:
    """No guard and no word of `debug` is an error that says what to write."""
    with pytest.raises(ConfigurationError, match=r"needs a guard.*Inspector\(cache, debug=True\)"):
        Inspector(HTTPCache())


def test_all_that_is_wrong_is_said_at_once() -> None:
    """One error names the cache, the guard and the switch."""
    wrong: Any = Inspector
    with pytest.raises(ConfigurationError) as raised:
        wrong("redis://", guard="open", debug="yes")
    assert all(text in str(raised.value) for text in ("HTTPCache that it shows", "guard is", "debug is True or False"))


def test_a_guard_that_fastapi_cannot_call_is_refused_at_the_start() -> None:
    """What a dependency cannot be asked for is found when the inspector is made."""

    def guard(pool: FastAPI) -> None: ...

    with pytest.raises(ConfigurationError, match="as FastAPI calls it"):
        Inspector(HTTPCache(), guard=guard)


ELSEWHERE: list[dict[str, Any]] = [
    {"server": ("192.0.2.1", 8000)},
    {"server": ("0.0.0.0", 8000)},
    {"server": ("/run/app.sock", None)},
    {"server": None},
    {"client": ("192.0.2.7", 5)},
    {"client": None},
    {"host": "shop.example"},
    {"host": "evil.test:8000"},
    {"host": "127.0.0.1.evil.test"},
    {"host": "localhost.evil.test"},
    {"host": ""},
    {"host": None},
    {"host": None, "headers": [("host", "localhost"), ("host", "evil.test")]},
    {"headers": {"x-forwarded-for": "203.0.113.9"}},
    {"headers": {"forwarded": "for=203.0.113.9"}},
    {"headers": {"via": "1.1 proxy"}},
    {"headers": {"X-Real-IP": "203.0.113.9"}},
]


@pytest.mark.parametrize("other", ELSEWHERE, ids=str)
@pytest.mark.parametrize("path", ["/", "/api/state", "/api/events"])
async def test_debug_answers_this_machine_alone(other: dict[str, Any], path: str) -> None:
    """Without a guard a request from elsewhere, through a proxy or by a foreign name is refused, and told why."""
    refused = await Inspected(debug=True).get(path, **other)
    assert refused.status_code == 403
    assert b"Inspector(cache, guard=...)" in refused.body


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:8000", "127.0.0.1:8000", "[::1]:8000", "shop.localhost", "localhost."]
)
async def test_debug_answers_by_every_name_of_this_machine(host: str) -> None:
    """Names that can lead nowhere else are good, in every spelling."""
    assert (await Inspected(debug=True).get(host=host)).status_code == 200


async def test_a_guard_is_asked_in_debug_too() -> None:
    """`debug` never replaces a guard that is there."""
    inspected = Inspected(debug=True, guard=by_key)
    assert (await inspected.get()).status_code == 401
    assert (await inspected.get(headers=KEY, host="shop.example")).status_code == 200


async def test_it_guards_in_other_frameworks_and_alone() -> None:
    """Mounted in Starlette, and as an app of its own, it asks its guard in the same way."""
    starlette = Starlette(routes=[Mount("/_cache", Inspector(HTTPCache(), guard=by_key))])
    assert (await ask(starlette, "/_cache/")).status_code == 401
    assert (await ask(starlette, "/_cache/", headers=KEY)).status_code == 200
    alone = Inspector(HTTPCache(), guard=by_key)
    assert (await ask(alone, "/")).status_code == 401
    assert (await ask(alone, "/", headers=KEY)).status_code == 200


async def test_the_stream_ends_and_the_guard_is_asked_again() -> None:
    """Who has lost access keeps no stream for longer than its life: it ends, and its successor is refused."""
    allowed = [True]
    inspected = Inspected(guard=lambda request: allowed[0])
    inspected.inspector._stream._life = 0.0
    stream = inspected.watch()
    answer = await stream.answer()
    assert answer.status_code == 200
    assert b"event: renew" in answer.body
    assert listed(stream, "purge") == []
    allowed[0] = False
    assert (await inspected.watch().answer()).status_code == 403
