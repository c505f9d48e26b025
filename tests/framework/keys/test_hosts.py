"""How a client spells the host: an app that is handed the spelling answers for that spelling alone."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import Depends, FastAPI, Request, Response

from fastapi_cacheinval import CacheMiddleware, cached
from fastapi_cacheinval.core.keys import sent_host
from fastapi_cacheinval.testing import assert_hit, assert_miss
from tests.helpers.http import ask, scope_of

pytestmark = pytest.mark.anyio

SHOPS = {"acme.example": "acme"}
SPELLINGS = ("ACME.example", "Acme.example", "acme.example", "acme.EXAMPLE", "acme.example:80")


def shop(*, honour_headers: bool) -> FastAPI:
    """An app that looks its tenant up by the host as it was sent, and one page that cannot."""
    app = FastAPI()
    app.add_middleware(CacheMiddleware, honour_headers=honour_headers)

    @app.get("/policy", dependencies=[cached(ttl=60, shared=True)])
    async def policy(request: Request) -> str:
        return SHOPS.get(request.headers["host"], "nobody")

    def host_of(request: Request) -> str:
        return SHOPS.get(request.headers["host"], "nobody")

    @app.get("/dependency", dependencies=[cached(ttl=60, shared=True)])
    async def dependency(name: str = depends_on(host_of)) -> str:
        return name

    @app.get("/headers")
    async def headers(request: Request, response: Response) -> str:
        response.headers["cache-control"] = "max-age=60"
        return SHOPS.get(request.headers["host"], "nobody")

    @app.get("/blind", dependencies=[cached(ttl=60)])
    async def blind() -> str:
        return "it"

    return app


def depends_on(call: Any) -> Any:
    """A parameter's default."""
    return Depends(call)


@pytest.mark.parametrize("honour_headers", [False, True])
@pytest.mark.parametrize("path", ["/policy", "/dependency", "/headers"])
async def test_a_spelling_never_answers_for_another(honour_headers: bool, path: str) -> None:
    """A client that writes the host in capitals poisons nobody's page."""
    app = shop(honour_headers=honour_headers)
    for _ in range(3):
        for host in SPELLINGS:
            answer = await ask(app, path, host=host)
            assert answer.body.decode().strip('"') == SHOPS.get(host, "nobody")


async def test_a_route_that_cannot_see_the_host_is_one_for_all_spellings() -> None:
    """Hosts are compared without case (RFC 9110 section 4.2.3)."""
    app = shop(honour_headers=False)
    assert_miss(await ask(app, "/blind", host="acme.example"))
    assert_hit(await ask(app, "/blind", host="ACME.example"))


@pytest.mark.parametrize("path", ["/policy", "/headers", "/blind"])
async def test_what_a_layer_inside_refuses_by_the_host_is_no_answer_for_others(path: str) -> None:
    """It compares hosts as they are spelled."""
    app = shop(honour_headers=True)

    @app.middleware("http")
    async def refuse(request: Request, call_next: Any) -> Any:
        return await call_next(request) if request.headers["host"] in SHOPS else Response(status_code=400)

    app.user_middleware.reverse()
    for _ in range(2):
        assert (await ask(app, path, host="ACME.example")).status_code == 400
        assert (await ask(app, path, host="acme.example")).status_code == 200


@pytest.mark.parametrize("honour_headers", [False, True])
@pytest.mark.parametrize("path", ["/policy", "/headers"])
async def test_without_a_host_the_server_that_was_asked_is_the_host(honour_headers: bool, path: str) -> None:
    """As an app sees it in `request.url`; what one address answers is not handed out at another."""
    app = FastAPI()
    app.add_middleware(CacheMiddleware, honour_headers=honour_headers)

    @app.get("/policy", dependencies=[cached(ttl=60, shared=True)])
    @app.get("/headers")
    async def where(request: Request, response: Response) -> str:
        response.headers["cache-control"] = "max-age=60"
        return str(request.url)

    for _ in range(3):
        for server in (("one", 80), ("one", 8080), ("two", 80), ("/run/socket", None)):
            bare = Request(scope_of(path, host=None, server=server))
            assert (await ask(app, path, host=None, server=server)).body.decode().strip('"') == str(bare.url)


def test_the_usual_spelling_adds_nothing() -> None:
    """Keys of ordinary requests are as short as ever; several lines, and none, are told apart."""
    assert sent_host([b"acme.example:80"]) == ()
    others = [sent_host(lines) for lines in ([b"A"], [b"a", b"b"], [b"a, b", b""], [])]
    others += [sent_host([], server) for server in (("a", 80), ("a", 81), ("b", 80), ("a", None))]
    assert len({*others, ()}) == len(others) + 1
