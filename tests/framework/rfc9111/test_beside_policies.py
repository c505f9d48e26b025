"""A route with `cached()` keeps its policy under `honour_headers`; without it, headers only make caching stricter."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Request, Response
from fastapi.responses import PlainTextResponse
from fastapi.routing import APIRoute

from fastapi_cacheinval import (
    CacheMiddleware,
    CacheTags,
    ConfigurationError,
    HeaderOptions,
    HeaderRule,
    HTTPCache,
    cached,
    invalidates,
)
from fastapi_cacheinval.testing import FakeClock
from tests.helpers.http import ask

pytestmark = pytest.mark.anyio


class Both:
    """A FastAPI app with routes of both kinds."""

    def __init__(self, **options: Any) -> None:
        self.clock = FakeClock()
        self.cache = HTTPCache(clock=self.clock)
        self.app = FastAPI()
        self.app.add_middleware(CacheMiddleware, cache=self.cache, **{"honour_headers": True, **options})
        self.calls: dict[str, int] = {}

        @self.app.get("/policy", dependencies=[cached(ttl=60, jitter=0)])
        def policy(response: Response) -> str:
            response.headers["cache-control"] = "max-age=5"
            return self._called("policy")

        @self.app.get("/off", dependencies=[cached(ttl=0)])
        def off(response: Response) -> str:
            response.headers["cache-control"] = "max-age=60"
            return self._called("off")

        @self.app.get("/headers")
        def headers(response: Response, tags: CacheTags, x: int = 0) -> str:
            tags.add("mine")
            response.headers["cache-control"] = "max-age=60"
            return self._called("headers")

        @self.app.put("/headers", dependencies=[invalidates("unrelated")])
        def put() -> None:
            """Write."""

    def _called(self, name: str) -> str:
        self.calls[name] = self.calls.get(name, 0) + 1
        return f"{name} {self.calls[name]}"

    async def get(self, path: str, **more: Any) -> Any:
        return await ask(self.app, path, **more)


async def test_the_policy_of_a_route_holds_and_not_its_headers() -> None:
    """It is fresh for its `ttl`, however short its `max-age`, and client directives are ignored."""
    both = Both()
    await both.get("/policy")
    both.clock.tick(50)
    await both.get("/policy", headers={"cache-control": "no-cache"})
    await both.get("/policy", method="HEAD")
    await both.get("/policy?utm=1")
    assert both.calls == {"policy": 1}


async def test_a_route_that_switched_caching_off_is_not_cached_by_its_headers() -> None:
    """`cached(ttl=0)` is the author's word."""
    both = Both()
    await both.get("/off")
    await both.get("/off")
    assert both.calls == {"off": 2}


class _Banning:
    """A middleware inside that answers some callers itself."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if (b"x-user", b"banned") in scope["headers"]:
            await PlainTextResponse("banned", 403, {"cache-control": "max-age=60"})(scope, receive, send)
        else:
            await self.app(scope, receive, send)


class _BanningRoute(APIRoute):
    """The same as a class of routes."""

    def get_route_handler(self) -> Any:
        handler = super().get_route_handler()

        async def banning(request: Request) -> Response:
            if request.headers.get("x-user") == "banned":
                return PlainTextResponse("banned", 403, {"cache-control": "max-age=60"})
            return await handler(request)

        return banning


def _ban(x_user: Annotated[str, Header()] = "") -> None:
    if x_user == "banned":
        raise HTTPException(403, "banned", headers={"cache-control": "max-age=60"})


@pytest.mark.parametrize("policy", [{"ttl": 0}, {"ttl": 60, "statuses": {200: 0}}], ids=["ttl=0", "a status of 0"])
@pytest.mark.parametrize("where", ["app", "router", "before", "behind", "class", "layer", "mounted"])
async def test_what_answers_in_front_of_a_route_that_is_switched_off_is_not_cached_by_its_headers(
    where: str, policy: dict[str, Any]
) -> None:
    """Whether its `cached()` comes to run or not, the route decides."""
    ban, off = Depends(_ban), cached(**policy)
    inner = FastAPI(dependencies=[ban] if where == "app" else [])
    if where in ("layer", "mounted"):
        inner.add_middleware(_Banning)
    kind = _BanningRoute if where == "class" else APIRoute
    router = APIRouter(dependencies=[ban] if where == "router" else [], route_class=kind)
    dependencies = {"before": [ban, off], "behind": [off, ban]}.get(where, [off])

    @router.get("/off", dependencies=dependencies)
    def answer() -> str:
        return "for you"

    inner.include_router(router)
    app = inner
    if where == "mounted":
        app = FastAPI()
        app.mount("/at", inner)
    app.add_middleware(CacheMiddleware, cache=HTTPCache(clock=FakeClock()), honour_headers=True)
    path = "/at/off" if where == "mounted" else "/off"
    for _ in range(2):
        assert (await ask(app, path, headers={"x-user": "banned"})).status_code == 403
        assert (await ask(app, path)).body == b'"for you"'


async def test_a_route_without_a_policy_follows_its_headers() -> None:
    """Tags added while answering are tags, and a PUT to the path invalidates it."""
    both = Both()
    await both.get("/headers")
    assert (await both.get("/headers")).cache.hit
    await both.cache.invalidate("mine")
    assert not (await both.get("/headers")).cache.hit
    await both.get("/headers", method="PUT")
    await both.get("/headers")
    assert both.calls == {"headers": 3}


async def test_a_policy_that_the_route_table_does_not_know_of_still_holds() -> None:
    """Where only the request itself reaches the `cached()`, what headers would store is dropped in its favour."""
    clock = FakeClock()
    inner = FastAPI()
    calls = []

    @inner.get("/page", dependencies=[cached(ttl=60, jitter=0)])
    def page(response: Response) -> str:
        response.headers["cache-control"] = "max-age=600"
        calls.append(1)
        return "page"

    async def hidden(scope: Any, receive: Any, send: Any) -> None:
        await inner(scope, receive, send)

    app = CacheMiddleware(hidden, cache=HTTPCache(clock=clock), honour_headers=True)
    for tick in (0, 50, 20):
        clock.tick(tick)
        assert (await ask(app, "/page", headers={"if-none-match": '"x"'})).status_code == 200
    assert len(calls) == 2


async def test_without_honour_headers_headers_store_nothing() -> None:
    """Policy mode: a route without `cached()` is never cached, whatever its response says."""
    both = Both(honour_headers=False)
    await both.get("/headers")
    await both.get("/headers")
    assert both.calls == {"headers": 2}


async def test_without_honour_headers_response_headers_only_make_a_policy_stricter() -> None:
    """`no-store` and `private` keep an answer out, and no header stores one or makes it last longer."""
    clock = FakeClock()
    app = FastAPI()
    app.add_middleware(CacheMiddleware, cache=HTTPCache(clock=clock))
    router = APIRouter(dependencies=[cached(ttl=10, jitter=0)])
    says = {"value": "max-age=600, stale-while-revalidate=600"}
    calls = []

    @router.get("/page")
    def page(response: Response) -> int:
        response.headers["cache-control"] = says["value"]
        response.headers["surrogate-control"] = "max-age=600"
        response.headers["cdn-cache-control"] = "max-age=600"
        calls.append(1)
        return len(calls)

    app.include_router(router)
    await ask(app, "/page")
    clock.tick(11)
    assert (await ask(app, "/page")).body == b"2"
    clock.tick(11)
    says["value"] = "no-store"
    await ask(app, "/page")
    assert (await ask(app, "/page")).body == b"4"


@pytest.mark.parametrize("value", [None, 1, "yes", {}])
def test_honour_headers_is_a_bool_or_options(value: Any) -> None:
    """Anything else is a configuration error at once."""
    with pytest.raises(ConfigurationError, match="honour_headers"):
        CacheMiddleware(FastAPI(), honour_headers=value)


@pytest.mark.parametrize(
    "option",
    [{"heuristic": 2}, {"heuristic": True}, {"set_cookie": 1}, {"stale_if_error": -1}, {"heuristic_most": "x"}],
)
def test_options_are_checked(option: dict[str, Any]) -> None:
    """Each names itself in its error."""
    with pytest.raises(ConfigurationError, match=next(iter(option))):
        HeaderOptions(**option)


@pytest.mark.parametrize("asked", [{}, {"authorization": "Bearer x"}])
@pytest.mark.parametrize("control", ["max-age=60", "public, max-age=60", "s-maxage=60"])
@pytest.mark.parametrize("policy", ["guarded_by", "partition_by", "off", "plain", "shared"])
async def test_what_a_post_says_is_not_kept_for_a_route_with_a_policy(
    policy: str, control: str, asked: dict[str, str]
) -> None:
    """It would answer GET ahead of the policy, past its guards and its tags."""

    def known(x_key: Annotated[str, Header()] = "") -> str:
        if not x_key:
            raise HTTPException(403)
        return x_key

    fields: dict[str, Any] = {policy: known} if policy.endswith("_by") else {}
    fields |= {"ttl": 0 if policy == "off" else 60, "shared": policy == "shared"}
    both, router = Both(), APIRouter()

    @router.get("/report", dependencies=[cached(**fields)])
    def read() -> str:
        return "read"

    @router.post("/report")
    def write(response: Response) -> str:
        response.headers["cache-control"] = control
        response.headers["content-location"] = f"{prefix}/report"
        return "written"

    inner = FastAPI()
    inner.include_router(router)
    both.app.include_router(router)
    both.app.include_router(router, prefix="/v1")
    both.app.mount("/mounted", inner)
    for prefix in ("", "/v1", "/mounted"):
        path = f"{prefix}/report"
        assert (await ask(both.app, path, method="POST", headers=asked)).body == b'"written"'
        answer = await ask(both.app, path)
        assert answer.status_code == (403 if policy.endswith("_by") else 200)
        assert answer.body != b'"written"'
        assert policy in ("plain", "shared") or (await ask(both.app, path, method="HEAD")).status_code in (403, 405)


@pytest.mark.parametrize("said", [{}, {"cache-control": "no-store"}, {"cache-control": "private, max-age=5"}])
async def test_no_rule_of_the_operators_speaks_for_what_a_post_says(said: dict[str, str]) -> None:
    """What answers it may ask who is calling: it is kept by its own word alone."""
    both = Both(honour_headers=HeaderOptions(rules=[("/*", HeaderRule(60, override=True))]))

    def known(x_key: Annotated[str, Header()] = "") -> None:
        if not x_key:
            raise HTTPException(403)

    @both.app.get("/report", dependencies=[Depends(known)])
    def read() -> str:
        return "read"

    @both.app.post("/report", dependencies=[Depends(known)])
    def write(response: Response) -> str:
        response.headers.update({**said, "content-location": "/report"})
        return "written"

    key = {"x-key": "admin"}
    assert (await ask(both.app, "/report", method="POST", headers=key)).status_code == 200
    assert (await ask(both.app, "/report")).status_code == 403
    assert (await ask(both.app, "/report", headers=key)).body == b'"read"'
