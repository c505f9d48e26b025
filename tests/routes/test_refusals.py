"""What a refused app is told: everything at once, by cause, with the way through the tree and the line to write."""

# No postponed annotations: the handlers name classes and callables of their own test.

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FunctionType
from typing import Annotated, Any, NamedTuple, TypedDict
from uuid import UUID

import pytest
from fastapi import APIRouter, Cookie, Depends, FastAPI, Header, HTTPException, Query, Request, Response
from fastapi.security import OAuth2PasswordBearer
from pydantic import BaseModel

from fastapi_cacheinval import (
    CacheMiddleware,
    CallerDependentRoute,
    ConfigurationError,
    HTTPCache,
    PartitionBy,
    RefusedRoute,
    RefusedRoutes,
    cached,
    invalidates,
)
from fastapi_cacheinval.testing import assert_hit
from tests.helpers.advice import line_in
from tests.helpers.http import ask

pytestmark = pytest.mark.anyio

oauth2 = OAuth2PasswordBearer(tokenUrl="token")
KNOWN = {"alice", "bob"}


@dataclass
class User:
    id: str
    role: str = "user"


class Account(BaseModel):
    email: str


class Session(TypedDict):
    user_id: str


class Pair(NamedTuple):
    colour: str


class Slotted:
    __slots__ = ("uuid",)

    def __init__(self, uuid: str) -> None:
        self.uuid = uuid


def _known(token: str) -> str:
    if token not in KNOWN:
        raise HTTPException(401)
    return token


def get_current_user(token: Annotated[str, Depends(oauth2)]) -> User:
    return User(_known(token))


def read_account(token: Annotated[str, Depends(oauth2)]) -> Account | None:
    return Account(email=_known(token))


def read_session(token: Annotated[str, Depends(oauth2)]) -> Session:
    return {"user_id": _known(token)}


def read_slotted(token: Annotated[str, Depends(oauth2)]) -> Slotted:
    return Slotted(_known(token))


def yielded_user(token: Annotated[str, Depends(oauth2)]) -> Iterator[User]:
    yield User(_known(token))


def read_name(token: Annotated[str, Depends(oauth2)]) -> str:
    return _known(token)


def read_number(token: Annotated[str, Depends(oauth2)]) -> UUID:
    return UUID(int=len(_known(token)))


def read_untyped(token: Annotated[str, Depends(oauth2)]):  # type: ignore[no-untyped-def]
    return _known(token)


def by_raw_request(request: Request) -> str:
    return _known(request.headers.get("authorization", "").removeprefix("Bearer "))


def require_user(token: Annotated[str, Depends(oauth2)]) -> None:
    _known(token)


def refused(table: Any, app: FastAPI) -> Any:
    with pytest.raises(ConfigurationError) as caught:
        table(app).audit()
    return caught.value


def shop() -> FastAPI:
    app = FastAPI(openapi_url=None)

    @app.get("/cart", dependencies=[cached(ttl=60)])
    def read_cart(user: Annotated[User, Depends(get_current_user)]) -> str:
        return user.id

    @app.get("/orders", dependencies=[cached(ttl=60)])
    def read_orders(user: Annotated[User, Depends(get_current_user)]) -> str:
        return user.id

    @app.get("/fine", dependencies=[cached(ttl=60)])
    def read_fine() -> str:
        return ""

    @app.get("/safe", dependencies=[invalidates("things")])
    def read_safe() -> str:
        return ""

    return app


def test_all_refusals_are_told_at_once(table) -> None:
    """One start says everything: each route stands in it once, below its cause, and each cause and each line once."""
    error = refused(table, shop())
    text = str(error)
    for route in ("/cart:", "/orders:", "GET /safe"):
        assert text.count(route) == 1
    assert "/fine" not in text
    assert text.count("depends on OAuth2PasswordBearer") == 1
    assert text.count("this line works") == 1
    assert text.count("partition_by keeps one stored response per value") == 1
    assert re.findall(r"^\d+\.", text, re.MULTILINE) == ["1.", "2."]
    assert isinstance(error, RefusedRoutes)
    assert [type(each) for each in error.errors] == [CallerDependentRoute, CallerDependentRoute, RefusedRoute]


def test_several_are_what_the_first_one_is(table) -> None:
    """`except CallerDependentRoute` catches them, and the attributes are the first one's."""
    error = refused(table, shop())
    assert isinstance(error, CallerDependentRoute)
    first: CallerDependentRoute = vars(error)["errors"][0]
    assert (error.route, error.parameters, error.advice) == ("/cart", first.parameters, first.advice)
    assert isinstance(error, RefusedRoutes)
    app = FastAPI(openapi_url=None)
    for path in ("/a", "/b"):
        app.get(path, dependencies=[invalidates("x")])(lambda: "")
    others = refused(table, app)
    assert isinstance(others, RefusedRoutes)
    assert not isinstance(others, CallerDependentRoute)
    assert others.route == "GET /a"


def test_a_single_refusal_is_raised_as_it_is(table) -> None:
    """No list of one: its own class and its own message."""
    app = FastAPI(openapi_url=None)
    app.get("/a", dependencies=[invalidates("x")])(lambda: "")
    assert type(refused(table, app)) is RefusedRoute


def test_a_route_with_several_mistakes_is_told_all_of_them(table) -> None:
    """Also those that are no question of who asks."""

    def takes(body: User, user: Annotated[User, Depends(get_current_user)]) -> str:
        return user.id

    app = FastAPI(openapi_url=None)
    app.get("/it", dependencies=[cached(ttl=60, tags=["of:{nobody}"])])(takes)
    text = str(refused(table, app))
    for part in ("OAuth2PasswordBearer", "'body'", "'nobody'"):
        assert part in text


def test_one_route_that_is_reached_by_two_ways_is_refused_once(table) -> None:
    """An app that is mounted twice has each mistake once for each of its paths, and no path twice."""
    inner, app = FastAPI(openapi_url=None), FastAPI(openapi_url=None)

    @inner.get("/cart", dependencies=[cached(ttl=60)])
    def read_cart(user: Annotated[User, Depends(get_current_user)]) -> str:
        return user.id

    app.mount("/a", inner)
    app.mount("/b", inner)
    text = str(refused(table, app))
    assert [text.count(path) for path in ("/a/cart", "/b/cart")] == [1, 1]


def test_the_way_through_the_tree_is_told(table) -> None:
    """From the handler to what reads the caller, at any depth, by any list."""

    def team(user: Annotated[User, Depends(get_current_user)]) -> str:
        return user.id

    def read_board(of: Annotated[str, Depends(team)]) -> str:
        return of

    def read_open() -> str:
        return ""

    app = FastAPI(openapi_url=None)
    router = APIRouter(dependencies=[Depends(require_user)])
    app.get("/board", dependencies=[cached(ttl=60)])(read_board)
    router.get("/open", dependencies=[cached(ttl=60)])(read_open)
    app.include_router(router)
    text = str(refused(table, app))
    assert "/board: read_board → team → get_current_user → OAuth2PasswordBearer\n" in text
    assert "/open: read_open → require_user → OAuth2PasswordBearer\n" in text


def test_a_hundred_routes_of_one_cause_are_one_cause(table) -> None:
    """The message grows by a line for each."""
    app = FastAPI(openapi_url=None)
    for number in range(101):

        def handler(user: Annotated[User, Depends(get_current_user)]) -> str:
            return user.id

        app.get(f"/it/{number}", dependencies=[cached(ttl=60)])(handler)
    text = str(refused(table, app))
    assert text.count("depends on OAuth2PasswordBearer") == 1
    assert len(text.splitlines()) < 110


@pytest.mark.parametrize("kind", ["templates", "unused", "credentials", "cookies", "decorated"])
def test_a_hundred_handlers_of_one_cause_are_one_cause(table, kind) -> None:
    """Whatever they are called: the line speaks of the handler, and each is named beside its route."""
    app = FastAPI(openapi_url=None)

    def render(of: Any) -> str:
        return ""

    def templates(request: Request) -> str:
        return render(request)

    def unused(request: Request) -> str:
        return ""

    def credentials(token: Annotated[str, Depends(oauth2)]) -> str:
        return token

    def cookies(session: Annotated[str, Cookie()]) -> str:
        return session

    def decorated(request: Request) -> str:
        return str(request.headers)

    for number in range(101):
        named = FunctionType((made := locals()[kind]).__code__, globals(), f"page_{number}", None, made.__closure__)
        named.__annotations__, named.__qualname__ = made.__annotations__, f"page_{number}"
        app.get(f"/it/{number}", dependencies=[cached(ttl=60)])(named)
    error = refused(table, app)
    text = str(error)
    assert "101 routes cannot be what they declare, for 1 cause(s)." in text
    assert len(text.splitlines()) < 110
    assert re.search(r"(T|t)he handler .*\.", text.splitlines()[-1])
    assert "page_" not in text.splitlines()[-1]
    for number in range(101):
        assert re.search(rf"^   /it/{number}: page_{number}\b", text, re.MULTILINE)
    # Each by itself has its own name.
    assert all(f"page_{number} " in each.advice for number, each in enumerate(error.errors))


def test_a_handler_with_a_cause_of_its_own_is_told_by_its_name(table) -> None:
    """Nothing is said in general that holds for one."""

    def unused(request: Request) -> str:
        return ""

    app = FastAPI(openapi_url=None)
    app.get("/a", dependencies=[cached(ttl=60)])(unused)
    app.get("/b", dependencies=[invalidates("x")])(lambda: "")
    assert "unused never uses 'request': remove the parameter." in str(refused(table, app))


# -- the line ------------------------------------------------------------------------------------


DEPENDENCIES: list[Callable[..., Any]] = [
    get_current_user,
    read_account,
    read_session,
    read_slotted,
    yielded_user,
    read_name,
    read_number,
    read_untyped,
    by_raw_request,
]


def page_of(dependency: Any, policy: Any) -> FastAPI:
    """The same app for each dependency; what it answers is the caller's own."""
    app = FastAPI(openapi_url=None)

    @app.get("/mine", dependencies=[policy])
    def read_mine(user: Annotated[Any, Depends(dependency)]) -> str:
        return str(vars(user) if hasattr(user, "__dict__") and not isinstance(user, str) else user)

    return app


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize("dependency", DEPENDENCIES, ids=lambda call: call.__name__)
async def test_the_line_for_a_users_page_starts_and_is_right(table, dependency) -> None:
    """Written as it is told, the app starts, each caller has a page of their own, and a revoked token gets its 401."""
    advice = refused(table, page_of(dependency, cached(ttl=60))).advice
    (line, *_) = re.findall(r"cached\(\.\.\., (.*?)\)(?=, or|\.$)", advice)
    app = page_of(dependency, eval(f"cached(ttl=60, {line})"))
    app.add_middleware(CacheMiddleware, cache=HTTPCache())
    pages = {name: (await ask(app, "/mine", headers=bearer(name))).body for name in ("alice", "bob")}
    for name, body in pages.items():
        answer = await ask(app, "/mine", headers=bearer(name))
        assert_hit(answer)
        assert answer.body == body
    assert (await ask(app, "/mine", headers=bearer("mallory"))).status_code == 401
    assert (await ask(app, "/mine")).status_code == 401


async def test_the_line_never_skips_a_check(table) -> None:
    """A check whose value goes nowhere becomes a guard, beside the partition that is there already."""

    def build(policy: Any) -> FastAPI:
        app = FastAPI(openapi_url=None, dependencies=[Depends(require_user)])

        @app.get("/mine", dependencies=[policy])
        def read_mine(user: Annotated[User, Depends(get_current_user)]) -> str:
            return user.id

        return app

    given = "partition_by=PartitionBy(get_current_user, key=lambda user: user.id)"
    advice = refused(table, build(eval(f"cached(ttl=60, {given})"))).advice
    assert "falls short: it does not cover require_user" in advice or "would not run on a hit" in advice
    assert "shared=True" not in advice
    (line,) = re.findall(r"cached\(\.\.\., (.*?)\)\.$", advice)
    assert line == "partition_by=PartitionBy(get_current_user, key=...), guarded_by=require_user"
    app = build(eval(f"cached(ttl=60, {line.replace('key=...', 'key=lambda user: user.id')})"))
    app.add_middleware(CacheMiddleware, cache=HTTPCache())
    for name in ("alice", "bob"):
        await ask(app, "/mine", headers=bearer(name))
        answer = await ask(app, "/mine", headers=bearer(name))
        assert_hit(answer)
        assert answer.body == f'"{name}"'.encode()
    assert (await ask(app, "/mine", headers=bearer("mallory"))).status_code == 401


def tenant() -> str:
    """Who it is stands in a context variable, where no audit sees it."""
    return "tenant"


TENANTS = {
    "tenant": tenant,
    "PartitionBy(tenant, key=...)": PartitionBy(tenant, key=lambda each: each),
    "PartitionBy(tenant, key=str)": PartitionBy(tenant, key=str),
    "Depends(tenant, use_cache=False)": Depends(tenant, use_cache=False),
}


@pytest.mark.parametrize("options", [{}, {"request_is_shared": True}], ids=["", "shared request"])
@pytest.mark.parametrize("taken", [get_current_user, read_untyped, None], ids=["typed", "untyped", "checked"])
@pytest.mark.parametrize("spelled", TENANTS)
def test_each_line_keeps_the_partition_that_is_there(table, spelled: str, options: Any, taken: Any) -> None:
    """Also one that the audit sees no need for, in the line and in the one that is offered beside it."""
    app = FastAPI(openapi_url=None)
    policy = cached(ttl=60, partition_by=TENANTS[spelled], **options)
    if taken is not None:

        @app.get("/mine", dependencies=[policy])
        def mine(user: Annotated[Any, Depends(taken)]) -> str:
            return str(user)

    else:
        app.get("/mine", dependencies=[policy, Depends(require_user)])(lambda: "")
    lines = re.findall(r"cached\(\.\.\., (.*?)\)(?=, or|\.$)", refused(table, app).advice)
    assert len(lines) == (2 if taken is read_untyped else 1)
    for line in lines:
        assert line.startswith((f"partition_by={spelled}, ", f"partition_by=({spelled}, "))
        assert ("request_is_shared=True" in line) is bool(options)


def test_a_part_of_a_value_keeps_what_has_to_be_moved(table) -> None:
    """Each line has the dependency that the message has the author write."""
    app = FastAPI(openapi_url=None)

    @app.get("/mine", dependencies=[cached(ttl=60)])
    def mine(user: Annotated[dict[str, str], Depends(get_current_user)], theme: Annotated[str, Cookie()]) -> str:
        return theme + str(user)

    lines = re.findall(r"cached\(\.\.\., (.*?)\)(?=, or|\.$)", refused(table, app).advice)
    assert lines
    assert all("theme" in line for line in lines)


def test_a_key_that_is_proposed_stands_beside_the_partitions_that_are_there(table) -> None:
    """Written down as it is said, `partition_by` is whole."""

    def rows(token: Annotated[str, Depends(oauth2)]) -> list[str]:
        return [token]

    text = str(refused(table, page_of(rows, cached(ttl=60, partition_by=(tenant, rows)))))
    assert "partition_by=(tenant, PartitionBy(rows, key=" in text


@pytest.mark.parametrize("there", [None, "request", "function"])
@pytest.mark.parametrize("here", [None, "request", "function"])
@pytest.mark.parametrize("cover", [get_current_user, yielded_user])
def test_the_line_asks_for_the_scope_that_the_route_asks_for(table, cover: Any, here: Any, there: Any) -> None:
    """What is pasted starts, whether a scope is written out or left out, and whether the dependency yields."""

    def app_of(policy: Any) -> FastAPI:
        app = FastAPI(openapi_url=None)

        @app.get("/mine", dependencies=[policy, Depends(cover, scope=there)])
        def mine(user: Annotated[Any, Depends(cover, scope=here)]) -> str:
            return str(user)

        return app

    line = line_in(refused(table, app_of(cached(ttl=60))).advice)
    names = {"cached": cached, "Depends": Depends, "PartitionBy": PartitionBy, cover.__name__: cover}
    table(app_of(eval(f"cached(ttl=60, {line})", names))).audit()


@pytest.mark.parametrize(
    ("here", "there"), [("function", "request"), ("function", None), ("request", "function"), (None, "function")]
)
@pytest.mark.parametrize("field", ["partition_by", "key", "guarded_by"])
def test_a_cover_in_another_scope_is_replaced_by_that_of_the_route(table, field: str, here: Any, there: Any) -> None:
    """Both would run, and the dependency twice for each request."""
    app = FastAPI(openapi_url=None)
    cover: Any = Depends(yielded_user, scope=there)
    given: dict[str, Any] = {"partition_by": PartitionBy(cover, key=str)} if field == "key" else {field: cover}
    taken: Any = Depends(yielded_user, scope=here)
    if field == "guarded_by":
        app.get("/mine", dependencies=[cached(ttl=60, **given), taken])(lambda: "")
    else:

        @app.get("/mine", dependencies=[cached(ttl=60, **given)])
        def mine(user: Annotated[Any, taken]) -> str:
            return str(user)

    advice = refused(table, app).advice
    line = line_in(advice)
    assert line.count("yielded_user") == 1
    assert ("scope='function'" in line) is (here == "function")
    assert ("key=str" in line) is (field == "key")


def test_what_a_dependency_adds_to_its_value_is_said_to_be_left_out(table) -> None:
    """The class knows nothing of it; what is set of the request's state is no part of the value."""

    def claims(request: Request, token: Annotated[str, Depends(oauth2)]) -> User:
        user = User(token)
        request.state.seen = user
        user.org = token  # type: ignore[attr-defined]
        return user

    advice = refused(table, page_of(claims, cached(ttl=60))).advice
    assert "of User: add what else a page may depend on, of org." in advice


def test_a_type_without_an_id_is_told_what_it_has(table) -> None:
    """No field that the message would have to guess."""

    def colours(token: Annotated[str, Depends(oauth2)]) -> Pair:
        return Pair(token)

    advice = refused(table, page_of(colours, cached(ttl=60))).advice
    assert "In place of id write what tells callers apart" in advice or "partition_by=colours" in advice


# -- what the handler reads itself ----------------------------------------------------------------


def test_an_unused_request_is_called_that(table) -> None:
    """The cure is to remove it, and nothing else."""

    def read_page(request: Request, page: int = 1) -> str:
        return str(page)

    app = FastAPI(openapi_url=None)
    app.get("/it", dependencies=[cached(ttl=60)])(read_page)
    error = refused(table, app)
    assert "which it never uses" in str(error)
    assert error.advice == "read_page never uses 'request': remove the parameter."


@pytest.mark.parametrize("use", ["nested", "locals", "passed"])
def test_a_request_that_may_be_used_is_not_called_unused(table, use) -> None:
    """By a function inside, by `locals()`, or by handing it on."""

    def nested(request: Request) -> str:
        def inner() -> str:
            return request.url.path

        return inner()

    def by_locals(request: Request) -> str:
        return str(locals())

    def passed(request: Request) -> str:
        return str(request)

    app = FastAPI(openapi_url=None)
    app.get("/it", dependencies=[cached(ttl=60)])({"nested": nested, "locals": by_locals, "passed": passed}[use])
    assert "never uses" not in str(refused(table, app))


def test_a_handler_that_only_renders_with_the_request_is_told_the_word_for_it(table) -> None:
    """Beside the partition that its user needs: one line for both, which starts."""

    def build(policy: Any) -> FastAPI:
        app = FastAPI(openapi_url=None)

        @app.get("/it", dependencies=[policy])
        def read_page(request: Request, user: Annotated[User, Depends(get_current_user)]) -> str:
            return f"{request.url_for('read_page')} {user.id}"

        return app

    advice = refused(table, build(cached(ttl=60))).advice
    (line,) = re.findall(r"cached\(\.\.\., (.*?)\)\.$", advice)
    assert (
        line
        == "partition_by=PartitionBy(get_current_user, key=lambda value: (value.id, value.role)), request_is_shared=True"
    )
    table(build(eval(f"cached(ttl=60, {line})"))).audit()


@pytest.mark.parametrize("name", ["headers", "cookies", "session", "state", "user"])
def test_a_handler_that_may_ask_the_request_who_it_is_gets_no_such_line(table, name) -> None:
    """The word would skip its check on a hit."""
    made: dict[str, Any] = {"Request": Request}
    exec(f"def read_page(request: Request) -> str:\n    return str(request.{name})\n", made)
    app = FastAPI(openapi_url=None)
    app.get("/it", dependencies=[cached(ttl=60)])(made["read_page"])
    advice = refused(table, app).advice
    assert "line works" not in advice
    assert "in a dependency that you name in partition_by or guarded_by" in advice


def test_a_cover_that_writes_the_response_is_told_where_else_to(table) -> None:
    """No line is promised meanwhile."""

    def counted(response: Response, token: Annotated[str, Depends(oauth2)]) -> str:
        response.headers["x-count"] = "1"
        return token

    app = FastAPI(openapi_url=None)
    app.get("/it", dependencies=[cached(ttl=60, guarded_by=counted)])(lambda: "")
    advice = refused(table, app).advice
    assert "counted must not take the response" in advice
    assert "line works" not in advice


def test_accept_headers_are_variants_wherever_they_stand(table, plan) -> None:
    """In a dependency, in a guard, in a model: none is a caller, each is in the variant."""

    class Wanted(BaseModel):
        accept: str = "*/*"
        accept_encoding: str = ""

    def language(accept_language: Annotated[str, Header()] = "en") -> str:
        return accept_language

    def wanted(of: Annotated[Wanted, Header()]) -> str:
        return of.accept

    def guard(token: Annotated[str, Depends(oauth2)], accept_charset: Annotated[str, Header()] = "") -> None:
        _known(token)

    def read_page(speaks: Annotated[str, Depends(language)], of: Annotated[str, Depends(wanted)]) -> str:
        return f"{speaks} {of}"

    app = FastAPI(openapi_url=None)
    app.get("/it", dependencies=[cached(ttl=60, guarded_by=guard)])(read_page)
    table(app).audit()
    assert plan(app).headers == (b"accept", b"accept-charset", b"accept-encoding", b"accept-language")


@pytest.mark.parametrize("name", ["accept-token", "accept-signature", "acceptance", "x-accept"])
def test_what_only_sounds_like_one_is_no_variant(table, name) -> None:
    """A dependency that reads it may check a caller by it."""

    def reads(it: Annotated[str, Header(alias=name)] = "") -> str:
        return it

    app = FastAPI(openapi_url=None)
    app.get("/it", dependencies=[cached(ttl=60), Depends(reads)])(lambda: "")
    assert isinstance(refused(table, app), CallerDependentRoute)


async def test_each_language_of_a_dependency_has_its_own_response() -> None:
    """Served to whoever asks for it, and to nobody else."""

    def language(accept_language: Annotated[str, Header()] = "en", sort: Annotated[str, Query()] = "") -> str:
        return accept_language

    app = FastAPI(openapi_url=None)

    @app.get("/it", dependencies=[cached(ttl=60)])
    def read_page(speaks: Annotated[str, Depends(language)]) -> str:
        return speaks

    app.add_middleware(CacheMiddleware, cache=HTTPCache())
    for _ in range(2):
        for spoken in ("en", "fr"):
            answer = await ask(app, "/it", headers={"Accept-Language": spoken})
            assert answer.body == f'"{spoken}"'.encode()
            assert "accept-language" in answer.headers["vary"]
    assert_hit(answer)


# -- once ----------------------------------------------------------------------------------------


async def test_the_refusal_is_said_once(caplog) -> None:
    """A server hears it as the failure of the lifespan, and the log of the cache does not repeat it."""
    app = shop()
    app.add_middleware(CacheMiddleware, cache=HTTPCache())
    said: list[Any] = []
    heard = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

    async def receive() -> Any:
        return next(heard)

    async def send(message: Any) -> None:
        said.append(message)

    with pytest.raises(RefusedRoutes):
        await app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, receive, send)
    (failed,) = said
    assert failed["type"] == "lifespan.startup.failed"
    assert "/orders" in failed["message"]
    assert not [record for record in caplog.records if "OAuth2PasswordBearer" in record.getMessage()]


async def test_without_a_lifespan_the_log_says_it_once(caplog) -> None:
    """Every request gets a 500, and the log one record."""
    app = shop()
    app.add_middleware(CacheMiddleware, cache=HTTPCache())
    for _ in range(3):
        assert (await ask(app, "/fine")).status_code == 500
    assert len([record for record in caplog.records if "OAuth2PasswordBearer" in record.getMessage()]) == 1


def test_the_names_of_the_line_are_public() -> None:
    """What the messages write can be imported from the package."""
    assert PartitionBy(get_current_user, key=str).key is str
