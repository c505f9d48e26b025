"""Answers that are files: the page with its token, and what it loads, as they lie in the package."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import Response

from fastapi_cacheinval.inspector.origin import COOKIE, new_token, token_in
from fastapi_cacheinval.inspector.plain import Told

__all__ = ["asset", "nothing", "page", "show_file", "show_page"]

_TYPES = {
    "inspector.css": "text/css; charset=utf-8",
    "inspector.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
_TOKEN = "TOKEN-OF-THIS-PAGE"  # noqa: S105  # what stands in its place in the file


async def show_page(request: Request) -> Response:
    """The page; its token is that of the cookie, where that has a good one."""
    token = token_in(request.headers.get("cookie", "")) or new_token()
    response = Response(page(token), media_type="text/html")
    # Without a path of its own: the browser knows better than the app below which path the page is.
    response.headers["set-cookie"] = (
        f"{COOKIE}={token}; HttpOnly; SameSite=Strict{'; Secure' if request.url.scheme == 'https' else ''}"
    )
    return response


def show_file(path: str) -> Response:
    """A file that the page loads."""
    found = asset(path.removeprefix("/static/")) if path.startswith("/static/") else None
    return nothing() if found is None else Response(found[0], media_type=found[1])


def nothing() -> Response:
    """The answer where there is no page."""
    return Told({"error": "There is nothing here."}, 404)


@cache
def _read(name: str) -> bytes:
    return files("fastapi_cacheinval.inspector").joinpath("static", name).read_bytes()


def asset(name: str) -> tuple[bytes, str] | None:
    """A file of the page and its media type; None for a name that is none of them."""
    kind = _TYPES.get(name)
    return None if kind is None else (_read(name), kind)


def page(token: str) -> bytes:
    """The page, with its token in it, which has no character that means anything in HTML."""
    return _read("index.html").replace(_TOKEN.encode(), token.encode())
