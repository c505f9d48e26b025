"""Answers that are files: the page with its token, and what it loads."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from fastapi_cacheinval.inspector.assets import asset, page
from fastapi_cacheinval.inspector.origin import COOKIE, new_token, token_in
from fastapi_cacheinval.inspector.plain import Told

__all__ = ["nothing", "show_file", "show_page"]


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
