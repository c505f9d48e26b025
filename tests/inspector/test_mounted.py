"""Where the inspector stands: mounts, root paths, proxies, other servers' scopes."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.routing import Mount

from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.inspector import Inspector
from tests.helpers.http import ask, lifespan_of, scope_of
from tests.inspector.inspected import LOCAL, Inspected

pytestmark = pytest.mark.anyio


def inspector() -> Inspector:
    """An inspector of a cache that nobody asks."""
    return Inspector(HTTPCache(), debug=True)


def app_with(*, root_path: str = "") -> FastAPI:
    """An app with an inspector below `/_cache`."""
    app = FastAPI()
    # As its option does, which newer releases deprecate.
    app.root_path = root_path
    app.mount("/_cache", inspector())
    return app


def nested() -> FastAPI:
    """An app in an app, with an inspector in the inner one."""
    outer = FastAPI()
    outer.mount("/inner", app_with())
    return outer


WAYS: list[Any] = [
    pytest.param(app_with(), "/_cache", {}, id="mounted"),
    pytest.param(app_with(root_path="/shop"), "/_cache", {}, id="root-path-of-the-app-stripped"),
    pytest.param(app_with(root_path="/shop"), "/shop/_cache", {}, id="root-path-of-the-app"),
    pytest.param(app_with(), "/_cache", {"root_path": "/shop"}, id="root-path-of-the-server-stripped"),
    pytest.param(app_with(), "/shop/_cache", {"root_path": "/shop"}, id="root-path-of-the-server"),
    pytest.param(app_with(), "/_cache/_cache", {"root_path": "/_cache"}, id="root-path-of-the-same-name"),
    pytest.param(nested(), "/inner/_cache", {}, id="nested"),
    pytest.param(nested(), "/shop/inner/_cache", {"root_path": "/shop"}, id="nested-below-a-root-path"),
    pytest.param(Starlette(routes=[Mount("/_cache", inspector())]), "/_cache", {}, id="starlette"),
    pytest.param(Starlette(routes=[Mount("/", inspector())]), "", {}, id="at-the-root"),
    pytest.param(inspector(), "", {}, id="alone"),
    pytest.param(inspector(), "/x", {"root_path": "/x"}, id="alone-below-a-root-path"),
]


@pytest.mark.parametrize(("app", "at", "more"), WAYS)
async def test_it_works_wherever_it_is_mounted(app: Any, at: str, more: dict[str, Any]) -> None:
    """The page, its files and its data are found below the mount, whatever stands in front of it."""
    scope = {**LOCAL, **more}
    page = await ask(app, f"{at}/", **scope)
    assert page.status_code == 200
    assert b"Cache inspector" in page.body
    for path in ("/static/inspector.js", "/static/inspector.css", "/static/icon.svg", "/api/state", "/api/contents"):
        assert (await ask(app, f"{at}{path}", **scope)).status_code == 200, path
    assert (await ask(app, f"{at}/static/other.js", **scope)).status_code == 404


async def test_without_its_slash_it_leads_to_the_page() -> None:
    """The framework redirects, and where it does not the inspector does, in a way that holds behind a proxy."""
    assert (await ask(app_with(), "/_cache", **LOCAL)).headers["location"] == "http://localhost/_cache/"
    alone = await ask(inspector(), "/tools/_cache", root_path="/tools/_cache", **LOCAL)
    assert (alone.status_code, alone.headers["location"]) == (307, "_cache/")


async def test_a_head_is_answered_like_its_get() -> None:
    """A probe needs no body."""
    inspected = Inspected()
    for path in ("/", "/api/state", "/static/inspector.js"):
        assert (await inspected.get(path, method="HEAD")).status_code == 200


async def test_a_web_socket_is_closed() -> None:
    """There is none here."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    await inspector()({"type": "websocket", "path": "/", "headers": []}, receive, send)
    assert [message["type"] for message in sent] == ["websocket.close"]


async def test_it_starts_and_stops_as_an_app_of_its_own() -> None:
    """A server that runs the inspector alone gets an answer to its lifespan."""
    async with lifespan_of(inspector()):
        pass


async def test_a_client_that_goes_while_it_sends_a_purge_ends_its_request() -> None:
    """Half a body is no purge, and no error of the app's."""
    inspected = Inspected()
    await inspected.load()
    scope = {
        **LOCAL,
        "headers": {
            "cookie": inspected.cookie,
            "x-cacheinval-inspector": inspected.token,
            "content-type": "application/json",
        },
    }
    parts = [{"type": "http.request", "body": b'{"everything": tr', "more_body": True}, {"type": "http.disconnect"}]
    sent: list[Any] = []

    async def receive() -> Any:
        return parts.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    await inspected.inspector(scope_of("/api/purge", method="POST", **scope), receive, send)
    assert sent[0]["status"] == 400
    assert inspected.shop.cache.statistics().purges == {}
