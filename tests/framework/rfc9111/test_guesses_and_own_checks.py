"""A hit by a guessed lifetime skips no check that a handler, or the class of its route, makes itself."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextvars import ContextVar
from functools import wraps
from inspect import Signature
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, FastAPI, Header, HTTPException, Request, Response
from fastapi.responses import FileResponse
from fastapi.routing import APIRoute
from starlette.requests import HTTPConnection
from starlette.routing import Match

from fastapi_cacheinval import CacheMiddleware, HTTPCache
from tests.helpers.http import ask

pytestmark = pytest.mark.anyio


# What an injection library or a layer outside keeps of the request.
_TERMINAL = ContextVar("terminal", default="")


def _check(caller: HTTPConnection) -> None:
    if not str(caller.client and caller.client.host).startswith("10."):
        raise HTTPException(403)


def _page(folder: Path) -> FileResponse:
    """An answer with a date to guess by, and no word on its lifetime."""
    (folder / "report").write_text("internal")
    os.utime(folder / "report", (1.6e9, 1.6e9))
    return FileResponse(folder / "report")


async def _asked(app: FastAPI) -> tuple[bool, int]:
    """Whether an answer to a caller from inside is stored, and what one from outside gets then."""
    app.add_middleware(CacheMiddleware, cache=HTTPCache(), honour_headers=True)
    _TERMINAL.set("T1")
    first = await ask(app, "/report", client=("10.0.0.1", 1), headers={"x-terminal": "T1"})
    assert first.status_code == 200
    assert first.cache is not None
    _TERMINAL.set("T2")
    return first.cache.stored, (await ask(app, "/report", client=("203.0.113.9", 1))).status_code


def _of_a_request(folder: Path) -> Callable[..., Any]:
    def handler(request: Request) -> FileResponse:
        _check(request)
        return _page(folder)

    return handler


def _of_a_connection(folder: Path) -> Callable[..., Any]:
    def handler(connection: HTTPConnection) -> FileResponse:
        _check(connection)
        return _page(folder)

    return handler


def _of_an_object(folder: Path) -> Callable[..., Any]:
    class Handler:
        def __call__(self, request: Request) -> FileResponse:
            _check(request)
            return _page(folder)

    return Handler()


def _of_a_header(folder: Path) -> Callable[..., Any]:
    def handler(x_terminal: Annotated[str, Header()] = "") -> FileResponse:
        if x_terminal != "T1":
            raise HTTPException(403)
        return _page(folder)

    return handler


def _filled(folder: Path) -> Callable[..., Any]:
    async def handler(terminal: str) -> FileResponse:
        if terminal != "T1":
            raise HTTPException(403)
        return _page(folder)

    @wraps(handler)
    async def filled() -> FileResponse:
        return await handler(terminal=_TERMINAL.get())

    filled.__signature__ = Signature()  # type: ignore[attr-defined]
    return filled


@pytest.mark.parametrize("made", [_of_a_request, _of_a_connection, _of_an_object, _of_a_header, _filled])
async def test_a_hit_by_guess_skips_no_check_of_the_handler_itself(
    tmp_path: Path, made: Callable[[Path], Callable[..., Any]]
) -> None:
    """What a dependency might ask of the caller, the handler might ask as well."""
    app = FastAPI()
    app.get("/report")(made(tmp_path))
    assert await _asked(app) == (False, 403)


class _Handling(APIRoute):
    def get_route_handler(self) -> Any:
        handler = super().get_route_handler()

        async def checked(request: Request) -> Response:
            _check(request)
            return await handler(request)

        return checked


class _Handing(APIRoute):
    async def handle(self, scope: Any, receive: Any, send: Any) -> None:
        _check(Request(scope))
        await super().handle(scope, receive, send)


class _Matching(APIRoute):
    def matches(self, scope: Any) -> Any:
        return super().matches(scope) if scope["client"][0].startswith("10.") else (Match.NONE, {})


@pytest.mark.parametrize(
    ("kind", "expected"),
    [(APIRoute, (True, 200)), (_Handling, (False, 403)), (_Handing, (False, 403)), (_Matching, (False, 404))],
)
async def test_a_hit_by_guess_skips_no_check_of_a_route_class(
    tmp_path: Path, kind: type[APIRoute], expected: tuple[bool, int]
) -> None:
    """A route class is handed each request of its routes; of FastAPI's own the page is kept."""
    router = APIRouter(route_class=kind)
    router.get("/report", response_model=None)(lambda: _page(tmp_path))
    app = FastAPI()
    app.include_router(router)
    assert await _asked(app) == expected
