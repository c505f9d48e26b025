"""A response that is fresh by a guess alone is for requests without credentials, however it is stored and found."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Request, Response
from fastapi.responses import FileResponse

from fastapi_cacheinval import CacheMiddleware, HeaderOptions, HTTPCache
from fastapi_cacheinval.core.rfc9111.asking import read_request
from tests.helpers.http import ask, settle
from tests.helpers.origin import Origin

pytestmark = pytest.mark.anyio

OPTIONS = [HeaderOptions(default_ttl=60), HeaderOptions(rules=[("/*", 60)]), HeaderOptions(heuristic=0.5), True]
CALLERS = [
    {"cookie": "sid=bob"},
    {"authorization": "Bearer bob"},
    {"x-api-key": "bob"},
    {"x-auth-token": "bob"},
    {"X_API_KEY": "bob"},
    {"proxy-authorization": "Basic bob"},
    {"x-forwarded-user": "bob"},
    {"x-" + 70 * "a": "bob"},
]
# What gateways say of a caller beside a name, and what only sounds like it.
OF_CALLERS = [
    "x-tenant", "x-tenant-id", "x-account", "x-org-id", "x-customer", "x-actor", "x-subject", "x-role", "x-hasura-role",
    "x-scope", "x-forwarded-groups", "x-device-id", "x_tenant_id", "x-workspace-uuid", "x-client-id",
    "x-client-dn", "x-client-verify", "x-arr-clientcert", "x-amzn-mtls-clientcert-serial-number", "x-spiffe-id",
    "eppn", "x-shib-eppn", "x-acting-as", "x-2fa",
    "x-on-behalf-of", "x-caller-id", "x-msisdn", "x-cart-id", "x-basket", "x-guest-id", "x-person-id", "x-subaccount",
]  # fmt: skip
ORDINARY = [
    "device-memory", "x-client-trace-id", "origin", "priority", "x-forwarded-host", "cloudfront-viewer-country-region",
]  # fmt: skip
BOB = {"cookie": "sid=bob"}


def guessed(origin: Origin, **more: str) -> dict[str, str]:
    """The fields of a response that says nothing of a lifetime."""
    return {"last-modified": origin.date(-100_000), **more}


@pytest.mark.parametrize("caller", CALLERS, ids=lambda caller: next(iter(caller))[:20])
@pytest.mark.parametrize("options", OPTIONS, ids=["default_ttl", "rules", "heuristic", "defaults"])
async def test_a_page_by_guess_is_not_given_to_a_request_with_credentials(
    options: HeaderOptions | bool, caller: dict[str, str]
) -> None:
    """Whoever asks first: a caller's own page goes to that caller, and strangers keep theirs."""
    origin = Origin(options)
    origin.says(guessed(origin), b"of nobody")
    origin.says(guessed(origin), b"of bob")
    assert (await origin.get()).cache.stored
    own = await origin.get(headers=caller)
    assert (own.body, own.cache.hit) == (b"of bob", False)
    again = await origin.get()
    assert (again.body, again.cache.hit, origin.forwards) == (b"of nobody", True, 2)
    origin.says(guessed(origin), path="/other")
    assert not (await origin.get("/other", headers=caller)).cache.stored


@pytest.mark.parametrize("name", OF_CALLERS)
async def test_what_a_gateway_says_of_a_caller_counts_as_a_credential(name: str) -> None:
    """A page by guess may be that tenant's, role's or device's alone."""
    origin = Origin()
    origin.says(guessed(origin), b"of nobody")
    origin.says(guessed(origin), b"of bob")
    await origin.get()
    assert (await origin.get(headers={name: "bob"})).body == b"of bob"
    assert (await origin.get()).body == b"of nobody"


CERTIFICATES = [
    {"client_cert_name": "CN=bob", "client_cert_chain": ["PEM"], "client_cert_error": None},
    {"client_cert_name": "CN=bob"},
    {"client_cert_chain": ("PEM",)},
    {"client_cert_error": "expired"},
]


@pytest.mark.parametrize("tls", CERTIFICATES, ids=str)
async def test_a_clients_certificate_counts_as_a_credential(tls: dict[str, Any]) -> None:
    """ASGI's TLS extension has it, and no field: by any key of it the app may tell whose page it gives."""
    origin = Origin()
    origin.says(guessed(origin), b"of nobody")
    origin.says(guessed(origin), b"of bob")
    bob: dict[str, Any] = {"extensions": {"tls": tls}}
    assert (await origin.get()).cache.stored
    own = await origin.get(**bob)
    assert (own.body, own.cache.detail) == (b"of bob", "credential")
    again = await origin.get()
    assert (again.body, again.cache.hit) == (b"of nobody", True)
    origin.says(guessed(origin), path="/other")
    assert not (await origin.get("/other", **bob)).cache.stored
    origin.says({"cache-control": "max-age=60"}, path="/said")
    assert (await origin.get("/said", **bob)).cache.stored


@pytest.mark.parametrize(
    "extensions",
    [
        {"tls": {"client_cert_name": None, "client_cert_chain": [], "client_cert_error": None, "tls_version": 772}},
        {"tls": {}},
        {"tls": None},
        {"http.response.push": {}},
        None,
    ],
    ids=str,
)
async def test_tls_without_a_clients_certificate_is_no_credential(extensions: Any) -> None:
    """The server's own certificate, and the version, say nothing of who asks."""
    origin = Origin()
    origin.says(guessed(origin))
    assert (await origin.get(extensions=extensions)).cache.stored
    assert (await origin.get(extensions=extensions)).cache.hit


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_what_one_caller_is_told_takes_nothing_from_strangers(method: str) -> None:
    """`private`, a 404 and a newer `ETag` for one caller say nothing of the page by guess."""
    origin = Origin()
    origin.says(guessed(origin), b"of nobody")
    await origin.get()
    for status, fields in ((200, {"cache-control": "private"}), (404, {}), (200, {"etag": '"bob"'})):
        origin.forget()
        origin.says(fields, b"" if method == "HEAD" else b"of bob", status=status)
        assert (await origin.get(method=method, headers=BOB)).status_code == status
        assert (await origin.get()).body == b"of nobody"


async def test_the_app_is_not_asked_whether_a_strangers_page_would_do() -> None:
    """All callers' pages may share a `Last-Modified`: a 304 to it would be no word on whose page it is."""
    origin = Origin()
    origin.says(guessed(origin), b"of nobody")
    origin.says({}, b"of bob")
    await origin.get()
    for seconds in (0, 90_000):
        origin.clock.tick(seconds)
        assert (await origin.get(headers=BOB)).body == b"of bob"
        assert b"if-modified-since" not in dict(origin.asked[-1]["headers"])


async def test_stale_pages_by_guess_stand_in_for_strangers_alone() -> None:
    """Neither while they are refreshed, nor for an error, nor for who would take stale ones."""
    origin = Origin(HeaderOptions(default_ttl=10, stale_if_error=600))
    origin.says({"cache-control": "stale-while-revalidate=600"}, b"of nobody")
    origin.says({}, b"down", status=503)
    await origin.get()
    origin.clock.tick(20)
    for asked in (BOB, {**BOB, "cache-control": "max-stale"}, {**BOB, "cache-control": "stale-if-error=600"}):
        assert (await origin.get(headers=asked)).status_code == 503
    assert (await origin.get()).body == b"of nobody"


async def test_who_has_credentials_is_not_answered_with_another_forward_by_guess() -> None:
    """It waits for the page, sees that it is one by guess, and is forwarded."""
    origin = Origin()
    origin.says(guessed(origin), b"of nobody")
    origin.says(guessed(origin), b"of bob")
    origin.gate = asyncio.Event()
    calls = [origin.call(headers=headers) for headers in ({}, BOB)]
    await settle()
    origin.gate.set()
    assert [(await call.answer()).body for call in calls] == [b"of nobody", b"of bob"]


@pytest.mark.parametrize("control", ["max-age=60", "public", "s-maxage=60"])
async def test_a_page_that_says_so_itself_is_for_all_with_cookies(control: str) -> None:
    """A lifetime, or `public`, is the response's own word: one forward serves callers with cookies too."""
    origin = Origin()
    origin.says(guessed(origin, **{"cache-control": control}))
    await origin.get(headers={"cookie": "sid=alice"})
    assert (await origin.get(headers=BOB)).cache.hit
    assert (await origin.get()).cache.hit


@pytest.mark.parametrize("options", OPTIONS, ids=["default_ttl", "rules", "heuristic", "defaults"])
@pytest.mark.parametrize(
    "said",
    [
        {"cache-control": "private; max-age=60"},
        {"cache-control": "no-store no-cache"},
        {"cache-control": "public; max-age=0"},
        {"cache-control": "no_store"},
        {"cache-control": "nostore, max-age=60"},
        {"cache-control": "no\xadstore, s-maxage=60"},
        {"cdn-cache-control": "no_store"},
        {"cdn-cache-control": '"no-store"'},
        {"surrogate-control": "no_store"},
        {"pragma": "no-cache"},
        {"pragma": "no_cache"},
        {"pragma": "x, No-Cache", "cache-control": "public"},
    ],
    ids=str,
)
async def test_no_guess_goes_against_what_is_misspelt_or_said_in_the_old_way(
    options: HeaderOptions | bool, said: dict[str, str]
) -> None:
    """Semicolons in `Cache-Control`, and `Pragma`, mean what they say to whoever wrote them."""
    origin = Origin(options)
    origin.says(guessed(origin, **said), b"of nobody")
    origin.says(guessed(origin, **said), b"of bob")
    assert [(await origin.get()).body for _ in range(2)] == [b"of nobody", b"of bob"]


async def test_no_cache_of_some_fields_is_no_word_on_the_rest() -> None:
    """`no-cache="x-a"` has nobody asked before the rest is reused, so it counts as a guess."""
    origin = Origin()
    origin.says(guessed(origin, **{"cache-control": 'no-cache="x-a"'}), b"of bob")
    assert not (await origin.get(headers=BOB)).cache.stored


@pytest.mark.parametrize(
    "name", ["accept-language", "user-agent", "sec-fetch-user", "cacheinval-token", "x-request-id", *ORDINARY]
)
async def test_ordinary_fields_are_no_credentials(name: str) -> None:
    """What every client sends does not keep pages by guess from it."""
    assert read_request("GET", [(name.encode(), b"x")], HeaderOptions()).credential is None


@pytest.mark.parametrize("options", OPTIONS, ids=["default_ttl", "rules", "heuristic", "defaults"])
async def test_a_page_by_guess_is_for_one_accept(options: HeaderOptions | bool) -> None:
    """Apps that negotiate do not always say so: a browser's page is not given to who asked for JSON."""
    origin = Origin(options)
    browser, client = {"accept": "text/html, */*;q=0.1"}, {"accept": "application/json"}
    origin.says(guessed(origin), b"<html>")
    assert (await origin.get(headers=browser)).cache.stored
    origin.forget()
    origin.says(guessed(origin), b"{}")
    assert (await origin.get(headers=client)).body == b"{}"
    assert (await origin.get(headers=browser | {"accept": "text/html,*/*;q=0.1"})).body == b"<html>"
    assert (await origin.get(headers=client)).cache.hit
    assert origin.forwards == 2
    origin.says({"cache-control": "max-age=60"}, b"said", path="/said")
    await origin.get("/said", headers=browser)
    assert (await origin.get("/said", headers=client)).cache.hit


@pytest.mark.parametrize(
    "field",
    [
        "accept-language",
        "next-router-prefetch",
        "x-api-version",
        "x-version",
        "hx-request",
        "hx-target",
        "turbo-frame",
        "x-pjax",
        "x-inertia",
        "x-requested-with",
        "rsc",
        "api-version",
    ],
)
async def test_a_part_of_a_page_is_not_kept_by_guess_for_the_whole(field: str) -> None:
    """Whichever came first: apps that answer such requests with a fragment do not always say so in `Vary`."""
    origin = Origin(HeaderOptions(default_ttl=60))
    for headers, body in [({field: "true"}, b"<li>"), ({}, b"<html>"), ({field: "true"}, b"<li>"), ({}, b"<html>")]:
        origin.forget()
        origin.says(guessed(origin), body)
        assert (await origin.get(headers=headers)).body == body
    assert origin.forwards == 2


async def test_a_frontend_of_fastapi_gives_its_page_to_browsers_alone(tmp_path: Path) -> None:
    """It answers an unknown path by `Accept`, without a `Vary`, and its page has a date to guess by."""
    frontend: Any = getattr(FastAPI, "frontend", None)
    (tmp_path / "index.html").write_text("<html>")
    os.utime(tmp_path / "index.html", (1.6e9, 1.6e9))
    app = FastAPI()
    if frontend is None:

        @app.get("/{path:path}")
        def page(path: str, request: Request) -> Response:
            if "text/html" not in request.headers["accept"]:
                raise HTTPException(404)
            return FileResponse(tmp_path / "index.html")

    else:
        app.frontend("/", directory=tmp_path, fallback="index.html")
    app.add_middleware(CacheMiddleware, cache=HTTPCache(), honour_headers=True)
    for accept, status in [
        ("application/json", 404),
        ("text/html", 200),
        ("application/json", 404),
        ("text/html", 200),
    ]:
        assert (await ask(app, "/jobs/7", headers={"accept": accept})).status_code == status


def _by_address(request: Request) -> None:
    if not str(request.client and request.client.host).startswith("10."):
        raise HTTPException(403)


def _by_a_header(x_terminal: Annotated[str, Header()] = "") -> None:
    if x_terminal != "T1":
        raise HTTPException(403)


def _of_another(_: Annotated[None, Depends(_by_address)]) -> None: ...


@pytest.mark.parametrize("where", ["route", "router", "app", "parameter"])
@pytest.mark.parametrize("guard", [_by_address, _by_a_header, _of_another])
@pytest.mark.parametrize("options", [True, HeaderOptions(default_ttl=60), HeaderOptions(rules=[("/*", 60)])])
async def test_a_hit_by_guess_skips_no_dependency_that_asks_who_calls(
    tmp_path: Path, options: Any, guard: Any, where: str
) -> None:
    """An address is in no field, and a check may be for a field of any name; what the app calls fresh is its own word."""
    (tmp_path / "report").write_text("internal")
    os.utime(tmp_path / "report", (1.6e9, 1.6e9))
    asked = [Depends(guard)]
    app = FastAPI(dependencies=asked if where == "app" else [])
    router = APIRouter(dependencies=asked if where == "router" else [])

    def guessed_at() -> FileResponse:
        return FileResponse(tmp_path / "report")

    def with_value(value: Any) -> FileResponse:
        return guessed_at()

    with_value.__annotations__["value"] = Annotated[Any, Depends(guard)]

    def said() -> FileResponse:
        return FileResponse(tmp_path / "report", headers={"cache-control": "max-age=60"})

    dependencies = asked if where == "route" else []
    router.get("/report", dependencies=dependencies)(with_value if where == "parameter" else guessed_at)
    router.get("/said", dependencies=dependencies)(said)
    app.include_router(router)
    app.add_middleware(CacheMiddleware, cache=HTTPCache(), honour_headers=options)
    inside: dict[str, Any] = {"client": ("10.0.0.1", 1), "headers": {"x-terminal": "T1"}}
    first = await ask(app, "/report", **inside)
    assert first.status_code == 200
    assert first.cache is not None
    outside = await ask(app, "/report", client=("203.0.113.9", 1))
    assert (first.cache.stored, first.cache.detail) == (False, "caller-dependent")
    assert outside.status_code == 403
    told = await ask(app, "/said", **inside)
    assert told.cache is not None
    assert told.cache.stored


def _frontend(of: Any, folder: Path) -> None:
    """Files below `/in`, by a frontend where this FastAPI has them."""
    if hasattr(of, "frontend"):
        of.frontend("/in", directory=folder)
    else:
        of.get("/in/{path:path}")(lambda path: FileResponse(folder / path))


@pytest.mark.parametrize("where", ["nowhere", "router", "app", "include"])
@pytest.mark.parametrize("ruled", [False, True])
async def test_a_frontend_is_kept_by_a_rule_alone_and_a_guarded_one_by_none(
    tmp_path: Path, where: str, ruled: bool
) -> None:
    """No header can be set on it, and its dependencies are there to guard it."""
    (tmp_path / "index.html").write_text("<html>")
    os.utime(tmp_path / "index.html", (1.6e9, 1.6e9))
    asked = [Depends(_by_address)]
    app = FastAPI(dependencies=asked if where == "app" else [])
    router = APIRouter(dependencies=asked if where == "router" else [])
    _frontend(app if where == "app" else router, tmp_path)
    if where != "app":
        app.include_router(router, dependencies=asked if where == "include" else [])
    options = HeaderOptions(rules=[("/in/*", 60)]) if ruled else True
    app.add_middleware(CacheMiddleware, cache=HTTPCache(), honour_headers=options)
    first = await ask(app, "/in/index.html", client=("10.0.0.1", 1))
    assert first.cache is not None
    assert (first.status_code, first.cache.stored) == (200, ruled and where == "nowhere")
    outside = await ask(app, "/in/index.html", client=("203.0.113.9", 1))
    assert outside.status_code == (200 if where == "nowhere" else 403)
