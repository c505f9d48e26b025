"""`request_is_shared=True`: the author's word for what is made of the raw request, and for nothing else."""

# No postponed annotations: the handlers name classes and callables of their own test.

from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import Cookie, Depends, FastAPI, Header, HTTPException, Request, Response
from fastapi.requests import HTTPConnection
from fastapi.templating import Jinja2Templates

from fastapi_cacheinval import CacheMiddleware, CallerDependentRoute, ConfigurationError, HTTPCache, PartitionBy, cached
from fastapi_cacheinval.routes.plan import Sharing
from fastapi_cacheinval.testing import assert_hit, assert_miss
from tests.helpers.http import ask

pytestmark = pytest.mark.anyio


def user(x_user: Annotated[str, Header()]) -> str:
    if x_user == "mallory":
        raise HTTPException(401)
    return x_user


def admin(request: Request) -> None:
    if request.headers.get("x-user") != "alice":
        raise HTTPException(403)


def container(request: Request) -> dict[str, Any]:
    return {"app": type(request.app).__name__}


def links(request: HTTPConnection) -> str:
    return str(request.url_for("it"))


def limited(request: Request, response: Response) -> None:
    response.headers["x-limit"] = request.url.path


def app_of(handler: Any, *more: Any, **policy: Any) -> FastAPI:
    app = FastAPI(openapi_url=None)
    app.get("/it", dependencies=[cached(ttl=60, **policy), *more], name="it")(handler)
    return app


def page(request: Request) -> str:
    return request.url.path


def own_page(request: Request, of: Annotated[str, Depends(user)]) -> str:
    return f"{request.url.path} of {of}"


async def test_a_page_made_by_templates_is_kept_per_user(tmp_path: Path) -> None:
    """Each user has their own, with and without a hit, and one that is turned away gets no hit."""
    (tmp_path / "page.html").write_text("<a href='{{ url_for('it') }}'>{{ name }}</a>")
    templates = Jinja2Templates(tmp_path)

    def render(request: Request, of: Annotated[str, Depends(user)]) -> Any:
        return templates.TemplateResponse(request, "page.html", {"name": of})

    app = app_of(render, partition_by=user, request_is_shared=True)
    app.add_middleware(CacheMiddleware, cache=HTTPCache())
    for expect in (assert_miss, assert_hit):
        for name in ("alice", "bob"):
            answer = await ask(app, "/it", headers={"X-User": name})
            expect(answer)
            assert answer.body == f"<a href='http://test/it'>{name}</a>".encode()
    assert (await ask(app, "/it", headers={"X-User": "mallory"})).status_code == 401


def test_without_the_word_it_does_not_start(table) -> None:
    """The safe thing is the default."""
    with pytest.raises(CallerDependentRoute, match="the raw request as 'request'"):
        table(app_of(own_page, partition_by=user)).audit()


async def test_a_public_page_needs_no_cover() -> None:
    """It is cached before routing as well, and a request with another query has another key."""
    app = app_of(page, request_is_shared=True)
    app.add_middleware(CacheMiddleware, cache=HTTPCache())
    assert_miss(await ask(app, "/it?a=1"))
    assert_hit(await ask(app, "/it?a=1"))
    assert_miss(await ask(app, "/it?a=2"))


def test_it_proves_nothing(plan) -> None:
    """A refresh still carries the headers of the request that caused it, and the whole query is in the key."""
    found = plan(app_of(page, request_is_shared=True))
    assert found.sharing is Sharing.COVERED
    assert found.query is None
    assert found.sees_request


async def test_a_check_by_the_raw_request_is_not_skipped(table) -> None:
    """The word is for values: a dependency that takes the request has to run on a hit, so it is named as a guard."""
    app = app_of(own_page, Depends(admin), partition_by=user, request_is_shared=True)
    with pytest.raises(CallerDependentRoute, match=r"guarded_by=admin, request_is_shared=True") as refused:
        table(app).audit()
    assert "admin may refuse the caller, and would not run on a hit" in str(refused.value)
    app = app_of(own_page, Depends(admin), partition_by=user, guarded_by=admin, request_is_shared=True)
    app.add_middleware(CacheMiddleware, cache=HTTPCache())
    assert_miss(await ask(app, "/it", headers={"X-User": "alice"}))
    assert_hit(await ask(app, "/it", headers={"X-User": "alice"}))
    assert (await ask(app, "/it", headers={"X-User": "bob"})).status_code == 403


def by_header(request: Request, response: Response) -> None:
    response.headers["x-user"] = request.headers["x-user"]


def by_status(request: Request, response: Response) -> None:
    response.status_code = 203 if request.headers["x-user"] == "alice" else 206


def by_cookie(request: HTTPConnection, response: Response) -> Any:
    response.set_cookie("of", request.headers["x-user"])
    yield


def above(_: Annotated[None, Depends(by_header)]) -> None: ...


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("writes", [by_header, by_status, by_cookie, above])
async def test_what_a_cover_writes_into_the_response_is_for_its_caller_alone(caplog, writes: Any, order: int) -> None:
    """Whatever the word says: each caller has their own fields, and the log says why nothing is stored."""
    covers = [admin_or_bob, writes][::order]
    alone = FastAPI()
    alone.get("/it", dependencies=[*map(Depends, covers)], name="it")(page)
    behind = app_of(page, *map(Depends, covers), guarded_by=covers, request_is_shared=True)
    behind.add_middleware(CacheMiddleware, cache=HTTPCache())
    for name in ("alice", "bob", "alice", "bob"):
        one, two = [await ask(app, "/it", headers={"X-User": name}) for app in (alone, behind)]
        assert (one.status_code, one.body) == (two.status_code, two.body)
        assert [two.headers.get(each) for each in ("x-user", "set-cookie")] == [
            one.headers.get(each) for each in ("x-user", "set-cookie")
        ]
        assert two.cache is not None
        assert two.cache.detail == "partition"
    assert "has set fields of the response" in caplog.text


def admin_or_bob(request: Request) -> None:
    if request.headers["x-user"] not in ("alice", "bob"):
        raise HTTPException(403)


async def test_a_cover_that_sets_fields_for_some_callers_is_asked_for_each() -> None:
    """Who is set nothing shares the page; who is set a field gets it, whatever is stored by then."""

    def some(request: Request, response: Response) -> None:
        if request.headers["x-user"] == "bob":
            response.headers["x-user"] = "bob"

    app = app_of(page, Depends(some), guarded_by=some, request_is_shared=True)
    app.add_middleware(CacheMiddleware, cache=HTTPCache())
    assert_miss(await ask(app, "/it", headers={"X-User": "alice"}))
    for _ in range(2):
        assert_hit(await ask(app, "/it", headers={"X-User": "alice"}))
        bob = await ask(app, "/it", headers={"X-User": "bob"})
        assert bob.headers["x-user"] == "bob"
        assert bob.cache is not None
        assert not bob.cache.hit


async def test_a_cover_that_is_handed_the_response_and_sets_nothing_is_no_obstacle() -> None:
    """As the dependency of a paginator, which keeps the response for its handler."""

    def keeps(request: Request, response: Response) -> None:
        request.scope["state"]["kept"] = response

    app = app_of(page, Depends(keeps), guarded_by=keeps, request_is_shared=True)
    app.add_middleware(CacheMiddleware, cache=HTTPCache())
    assert_miss(await ask(app, "/it"))
    assert_hit(await ask(app, "/it"))


@pytest.mark.parametrize("library", [container, links, limited])
def test_what_a_dependency_makes_of_the_request_may_reach_the_handler(table, library) -> None:
    """Once it runs on every request, what it makes of the URL or the app is for all; so are the fields that it sets."""

    def handler(of: Annotated[Any, Depends(library)], who: Annotated[str, Depends(user)]) -> str:
        return f"{of} {who}"

    table(app_of(handler, partition_by=user, guarded_by=library, request_is_shared=True)).audit()
    with pytest.raises(CallerDependentRoute):
        table(app_of(handler, partition_by=user, guarded_by=library)).audit()
    with pytest.raises(CallerDependentRoute):
        table(app_of(handler, partition_by=user, request_is_shared=True)).audit()


class Sessions:
    def name(self, request: HTTPConnection) -> str:
        return str(request.cookies.get("sid"))

    def __call__(self, request: Request) -> str:
        return self.name(request)


def of_state(request: Request) -> str:
    return str(request.state.user)


def handed_on(request: Request) -> str:
    return Sessions().name(request)


def below(name: Annotated[str, Depends(handed_on)]) -> str:
    return name.upper()


@pytest.mark.parametrize("who", [Sessions(), Sessions().name, of_state, handed_on, below])
def test_the_value_of_a_dependency_that_may_ask_who_calls_is_in_the_key(table, who) -> None:
    """The word is for the handler's own request: what is made of another's may be the caller's name."""

    def handler(request: Request, name: Annotated[str, Depends(who)]) -> str:
        return f"{request.url} {name}"

    for options in ({}, {"guarded_by": who}, {"guarded_by": handed_on}):
        with pytest.raises(CallerDependentRoute) as refused:
            table(app_of(handler, request_is_shared=True, **options)).audit()
        assert "this line works: cached(..., partition_by=" in refused.value.advice
    table(app_of(handler, partition_by=who, request_is_shared=True)).audit()
    table(app_of(handler, partition_by=PartitionBy(who, key=lambda _: ""), request_is_shared=True)).audit()


def test_other_ways_to_ask_who_it_is_still_count(table) -> None:
    """A cookie or a header beside the request, in the handler or in a dependency, and fields that depend on them."""

    def with_cookie(request: Request, session: Annotated[str, Cookie()] = "") -> str:
        return f"{request.url} {session}"

    def writes(request: Request, response: Response, session: Annotated[str, Cookie()] = "") -> None:
        response.headers["x-of"] = session

    def value(of: Annotated[str, Depends(with_cookie)]) -> str:
        return of

    for app in (
        app_of(with_cookie, request_is_shared=True),
        app_of(value, guarded_by=with_cookie, request_is_shared=True),
        app_of(page, guarded_by=writes, request_is_shared=True),
    ):
        with pytest.raises(CallerDependentRoute, match=r"session|writes"):
            table(app).audit()


@pytest.mark.parametrize("value", [1, "yes", None])
def test_it_is_a_switch(value) -> None:
    """Nothing else passes for the word."""
    with pytest.raises(ConfigurationError, match="request_is_shared is True or False"):
        cached(ttl=60, request_is_shared=value)


def test_an_inner_policy_may_take_it_back(table) -> None:
    """The innermost `cached()` counts, whole."""
    app = FastAPI(openapi_url=None, dependencies=[cached(ttl=60, request_is_shared=True)])
    app.get("/it", dependencies=[cached(ttl=60)])(page)
    with pytest.raises(CallerDependentRoute):
        table(app).audit()


class Container:
    def __init__(self, request: Request) -> None:
        self.registry = request.scope


def renderer(request: Request):  # type: ignore[no-untyped-def]
    return lambda: str(request.url)


@pytest.mark.parametrize("made", [Container, renderer])
async def test_the_value_of_a_container_is_for_all_by_the_author_s_word(table, made: Any) -> None:
    """The refusal says how, and the same is kept for all then."""

    def read(value: Annotated[Any, Depends(made)]) -> str:
        return type(value).__name__

    with pytest.raises(CallerDependentRoute) as refused:
        table(app_of(read, request_is_shared=True)).audit()
    told = f"If nothing of {made.__name__} tells callers apart, key=lambda value: None says so."
    assert told in refused.value.advice
    app = app_of(read, partition_by=PartitionBy(made, key=lambda _: None), request_is_shared=True)
    app.add_middleware(CacheMiddleware, cache=HTTPCache())
    assert_miss(await ask(app, "/it", headers={"X-User": "alice"}))
    assert_hit(await ask(app, "/it", headers={"X-User": "bob"}))


def test_what_a_header_tells_is_for_nobody_else(table) -> None:
    """The word is for what is made of the raw request alone; without it nothing is said of it."""

    def of_header(request: Request, of: Annotated[str, Depends(user)]) -> Any:
        return request, of

    def read(value: Annotated[Any, Depends(of_header)]) -> str:
        return str(value)

    def contained(value: Annotated[Any, Depends(Container)]) -> str:
        return str(value)

    for app in (app_of(read, request_is_shared=True), app_of(contained)):
        with pytest.raises(CallerDependentRoute) as refused:
            table(app).audit()
        assert "value: None" not in refused.value.advice
