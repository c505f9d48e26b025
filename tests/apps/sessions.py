"""Pages for browsers: a cookie names a session, pages are made with the request's URLs, a route class adds a field."""

from collections.abc import Callable, Coroutine
from html import escape
from secrets import token_urlsafe
from typing import Annotated, Any

from fastapi import Cookie, Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.routing import APIRoute

from fastapi_cacheinval import CacheMiddleware, HTTPCache, cached, invalidates


class Framed(APIRoute):
    """Forbids other sites to frame our pages."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Add the field to what the handler answers."""
        handler = super().get_route_handler()

        async def framed(request: Request) -> Response:
            response = await handler(request)
            response.headers["X-Frame-Options"] = "DENY"
            return response

        return framed


class Site:
    """Sessions by the value of their cookie, and the theme that each user likes."""

    def __init__(self) -> None:
        self.sessions: dict[str, str] = {"session-of-alice": "alice", "session-of-bob": "bob"}
        self.themes: dict[str, str] = {}


def current_user(request: Request, session: Annotated[str | None, Cookie()] = None) -> str:
    """Who has signed in; anybody else is sent to the front page."""
    site: Site = request.app.state.site
    if session not in site.sessions:
        raise HTTPException(303, headers={"Location": str(request.url_for("read_front_page"))})
    return site.sessions[session]


def page(request: Request, body: str) -> HTMLResponse:
    """A page with links."""
    front, account = request.url_for("read_front_page"), request.url_for("read_account")
    return HTMLResponse(f"<nav><a href='{front}'>front</a> <a href='{account}'>account</a></nav><p>{body}</p>")


def create_app() -> FastAPI:
    """The site, with two users signed in."""
    app = FastAPI(openapi_url=None)
    app.router.route_class = Framed
    site = app.state.site = Site()

    @app.get("/", dependencies=[cached(ttl=60, request_is_shared=True)])
    def read_front_page(request: Request) -> HTMLResponse:
        return page(request, "Welcome")

    @app.get(
        "/account",
        dependencies=[cached(ttl=60, partition_by=current_user, request_is_shared=True, tags=["accounts"])],
    )
    def read_account(request: Request, user: Annotated[str, Depends(current_user)]) -> HTMLResponse:
        return page(request, f"{escape(user)} likes it {escape(site.themes.get(user, 'light'))}")

    @app.post("/theme", dependencies=[invalidates("accounts")])
    def choose_theme(name: str, request: Request, user: Annotated[str, Depends(current_user)]) -> Response:
        site.themes[user] = name
        return RedirectResponse(request.url_for("read_account"), 303)

    @app.post("/sign-in")
    def sign_in(name: str, request: Request) -> Response:
        session = token_urlsafe()
        site.sessions[session] = name
        response = RedirectResponse(request.url_for("read_account"), 303)
        response.set_cookie("session", session, httponly=True)
        return response

    @app.post("/sign-out")
    def sign_out(session: Annotated[str, Cookie()]) -> None:
        site.sessions.pop(session, None)

    app.add_middleware(CacheMiddleware, cache=HTTPCache())
    return app
