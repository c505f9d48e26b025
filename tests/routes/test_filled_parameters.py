"""What a decorator fills in the place of FastAPI may be the caller's: it counts as the raw request does."""

# No postponed annotations: the handlers name callables of their own test.

import functools
import inspect
from contextvars import ContextVar
from typing import Annotated, Any

import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException, Query, Request, Response

from fastapi_cacheinval import CacheMiddleware, CallerDependentRoute, HTTPCache, cached
from fastapi_cacheinval.testing import assert_hit, assert_miss
from tests.helpers.http import ask

pytestmark = pytest.mark.anyio

USER: ContextVar[str | None] = ContextVar("USER", default=None)


class Signs:
    """Puts who is calling into a context variable."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        USER.set(dict(scope.get("headers", ())).get(b"x-user", b"").decode() or None)
        await self.app(scope, receive, send)


def filling(name: str, *more: inspect.Parameter) -> Any:
    """A decorator that fills one parameter, and hides it from FastAPI."""

    def decorate(function: Any) -> Any:
        @functools.wraps(function)
        def filled(*args: Any, **given: Any) -> Any:
            if USER.get() is None:
                raise HTTPException(401)
            for each in more:
                given.pop(each.name, None)
            return function(*args, **{name: USER.get(), **given})

        said = inspect.signature(function)
        kept = [each for each in said.parameters.values() if each.name != name]
        filled.__signature__ = said.replace(parameters=[*kept, *more])  # type: ignore[attr-defined]
        return filled

    return decorate


def plainly(function: Any) -> Any:
    """A decorator that hands on what it is handed."""

    @functools.wraps(function)
    def handed(*args: Any, **given: Any) -> Any:
        return function(*args, **given)

    return handed


def more(name: str, annotation: Any = str, **of: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, **of)


def me(user: str) -> str:
    return user


def page(user: str, number: int = 1) -> str:
    return f"{user} {number}"


class View:
    @filling("user")
    def bound(self, user: str) -> str:
        return user

    @filling("user")
    def __call__(self, user: str) -> str:
        return user


def hidden_in_place(function: Any) -> Any:
    """As `filling`, with the signature written over the function's own, too."""
    filled = filling("user")(function)
    function.__signature__ = filled.__signature__
    return filled


def app_of(handler: Any, *dependencies: Any, **policy: Any) -> FastAPI:
    app = FastAPI(openapi_url=None)
    app.get("/it", dependencies=[cached(ttl=60, **policy), *dependencies])(handler)
    return app


FILLED = [
    filling("user")(me),
    filling("user")(page),
    plainly(filling("user")(me)),
    filling("user")(plainly(me)),
    filling("user", more("response", Response))(me),
    filling("user", more("tasks", BackgroundTasks))(me),
    functools.partial(filling("user")(page), number=2),
    hidden_in_place(lambda user: user),
    View().bound,
    View(),
]


@pytest.mark.parametrize("handler", FILLED)
def test_a_parameter_that_a_decorator_fills_keeps_the_app_from_starting(table, handler: Any) -> None:
    """The refusal names it, and the word that lets it through."""
    with pytest.raises(CallerDependentRoute, match=r"fill: 'user'\. A hit skips what they check") as refused:
        table(app_of(handler)).audit()
    assert "request_is_shared=True" in refused.value.advice
    assert "line works" not in refused.value.advice
    table(app_of(handler, shared=True)).audit()


@pytest.mark.parametrize("handler", FILLED)
async def test_with_the_author_s_word_it_is_kept(handler: Any) -> None:
    """It counts as made of the request, so the key has the whole query."""
    app = app_of(handler, request_is_shared=True)
    app.add_middleware(Signs)
    app.add_middleware(CacheMiddleware, cache=HTTPCache())
    assert_miss(await ask(app, "/it?of=1", headers={"X-User": "alice"}))
    assert_hit(await ask(app, "/it?of=1", headers={"X-User": "bob"}))
    assert_miss(await ask(app, "/it?of=2", headers={"X-User": "bob"}))


class User:
    def __init__(self, user: str) -> None:
        self.user = user


class Inject:
    """What libraries write in the place of a default."""


MARK: Any = Inject()


def optional(user: Any = None) -> Any:
    return user


def marked(*, user: Annotated[str, Inject()] = "", number: int = 1) -> str:
    return f"{user} {number}"


def by_any_name(**user: Any) -> Any:
    return user


def by_place(*user: Any) -> Any:
    return user


def without_wraps(function: Any, **of: Any) -> Any:
    """A decorator that keeps the name alone."""

    def filled(**given: Any) -> Any:
        return function(user=USER.get(), **given)

    filled.__name__ = function.__name__
    vars(filled).update(of)
    return filled


class Filled:
    """An object in the place of a function."""

    def __init__(self, function: Any) -> None:
        self.function, self.__name__ = function, function.__name__
        self.__signature__ = inspect.Signature()

    def __call__(self, **given: Any) -> Any:
        return self.function(user=USER.get(), **given)


HIDDEN = [
    filling("user")(optional),
    filling("user")(marked),
    plainly(filling("user")(plainly(optional))),
    filling("user")(functools.partial(marked, number=2)),
    filling("user")(lambda q="", *, user=MARK: q),
    filling("user")(by_any_name),
    filling("user")(by_place),
    filling("user")(plainly(by_any_name)),
    filling("user")(User),
    without_wraps(me, __signature__=inspect.Signature()),
    without_wraps(optional, __signature__=inspect.Signature()),
    Filled(me),
    Filled(optional),
]


@pytest.mark.parametrize("handler", HIDDEN)
def test_a_decorator_fills_what_it_hides(table, handler: Any) -> None:
    """Also what has a default, what takes anything, and what a decorator does not say that it wraps."""
    with pytest.raises(CallerDependentRoute, match=r"fill: 'user'\."):
        table(app_of(handler)).audit()
    table(app_of(handler, request_is_shared=True)).audit()


class Meta(type):
    @filling("user")
    def __call__(cls, user: str = "") -> Any:
        made: Any = super().__call__()
        made.user = user
        return made


class ByMeta(metaclass=Meta):
    user: str


class ByInit:
    @filling("user")
    def __init__(self, user: str = "") -> None:
        self.user = user


class ByNew:
    @filling("user")
    def __new__(cls, user: str) -> Any:
        made: Any = object.__new__(cls)
        made.user = user
        return made

    user: str


class Inherits(ByInit):
    pass


@pytest.mark.parametrize("kind", [ByInit, ByNew, ByMeta, Inherits, functools.partial(ByInit), plainly(ByNew)])
async def test_so_it_does_where_a_class_is_the_dependency(table, kind: Any) -> None:
    """FastAPI calls what makes its objects."""

    def read(of: Annotated[Any, Depends(kind)]) -> str:
        return of.user

    with pytest.raises(CallerDependentRoute, match="'user', which decorators fill"):
        table(app_of(read)).audit()
    plain = FastAPI(openapi_url=None)
    plain.get("/it")(read)
    plain.add_middleware(Signs)
    assert (await ask(plain, "/it", headers={"X-User": "bob"})).body == b'"bob"'


async def test_in_a_dependency_it_needs_a_cover(table) -> None:
    """The line that is proposed keeps callers apart, and turns away who has no name."""

    @filling("user")
    def who(user: str) -> str:
        return user

    def read(name: Annotated[str, Depends(who)]) -> str:
        return name

    with pytest.raises(CallerDependentRoute, match=r"partition_by=who"):
        table(app_of(read)).audit()
    with pytest.raises(CallerDependentRoute, match=r"guarded_by=who"):
        table(app_of(lambda: 1, Depends(who), request_is_shared=True)).audit()
    app = app_of(read, partition_by=who)
    app.add_middleware(Signs)
    app.add_middleware(CacheMiddleware, cache=HTTPCache())
    for expect in (assert_miss, assert_hit):
        for name in ("alice", "bob"):
            answer = await ask(app, "/it", headers={"X-User": name})
            expect(answer)
            assert answer.body == f'"{name}"'.encode()
    assert (await ask(app, "/it")).status_code == 401


def adding_the_request(function: Any) -> Any:
    @functools.wraps(function)
    def added(request: Request, *args: Any, **given: Any) -> Any:
        return function(*args, **given)

    said = inspect.signature(function)
    first = inspect.Parameter("request", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=Request)
    added.__signature__ = said.replace(parameters=[first, *said.parameters.values()])  # type: ignore[attr-defined]
    return added


def by_number(function: Any) -> Any:
    """FastAPI fills the parameter of the function under another name."""

    @functools.wraps(function)
    def found(number: int) -> Any:
        return function(user=f"user {number}")

    found.__signature__ = inspect.signature(lambda number: ...)  # type: ignore[attr-defined]
    return found


class Views:
    """A class-based view as libraries make them: FastAPI, or a decorator, hands on the object."""

    def plain(self, q: str = "") -> str:
        return q

    @plainly
    def decorated(self, q: str = "") -> str:
        return q


def of_an_object(function: Any) -> Any:
    @functools.wraps(function)
    def on(**given: Any) -> Any:
        return function(Views(), **given)

    said = inspect.signature(function)
    on.__signature__ = said.replace(parameters=[*said.parameters.values()][1:])  # type: ignore[attr-defined]
    return on


def in_place_of_self() -> Any:
    def view(self: Any, q: str = "") -> str:
        return q

    said = inspect.signature(view)
    parameters = [*said.parameters.values()]
    parameters[0] = more("self", Any, default=Depends(Views))
    view.__signature__ = said.replace(parameters=[*reversed(parameters)])  # type: ignore[attr-defined]
    return view


def anything(*args: Any, **given: Any) -> str:
    return f"{len(args)} {len(given)}"


anything.__signature__ = inspect.signature(me)  # type: ignore[attr-defined]


def hiding(function: Any) -> Any:
    """Nobody stands between FastAPI and a function that says that it takes nothing."""
    function.__signature__ = inspect.Signature()
    return function


def named_after(function: Any, kind: Any) -> Any:
    """What a factory makes of a class, and names after it."""

    def made(**given: Any) -> Any:
        return kind(function(**given))

    made.__name__, made.__signature__ = kind.__name__, inspect.signature(function)  # type: ignore[attr-defined]
    return made


class Plain:
    @plainly
    def __init__(self, q: str = "") -> None:
        self.q = q


@pytest.mark.parametrize(
    "handler",
    [
        plainly(me),
        plainly(plainly(page)),
        functools.partial(page, "a"),
        functools.partial(plainly(page), number=3),
        functools.update_wrapper(functools.partial(page, "a"), page),
        functools.lru_cache(me),
        by_number(me),
        Views().plain,
        Views().decorated,
        of_an_object(Views.plain),
        of_an_object(Views.decorated),
        in_place_of_self(),
        anything,
        plainly(anything),
        hiding(anything),
        hiding(lambda q="": q),
        named_after(me, User),
        Plain,
        plainly(Plain),
    ],
)
def test_what_fastapi_fills_or_nobody_does_starts(table, handler: Any) -> None:
    """Also under another name, by a `partial`, and where a class-based view takes its object."""
    table(app_of(handler)).audit()


def test_a_decorator_that_adds_the_request_is_let_through_by_the_word(table) -> None:
    """What it hands on all comes from FastAPI."""
    with pytest.raises(CallerDependentRoute, match="the raw request as 'request'"):
        table(app_of(adding_the_request(me))).audit()
    table(app_of(adding_the_request(me), request_is_shared=True)).audit()


def test_a_parameter_that_another_layer_takes_makes_up_for_nothing(table) -> None:
    """The outer decorator takes a name of its own; what the inner one fills is still from elsewhere."""

    def limited(function: Any) -> Any:
        @functools.wraps(function)
        def limit(limit: int = 1, **given: Any) -> Any:
            return function(**given)

        said = inspect.signature(function)
        limit.__signature__ = said.replace(  # type: ignore[attr-defined]
            parameters=[*said.parameters.values(), more("limit", Annotated[int, Query()], default=1)]
        )
        return limit

    with pytest.raises(CallerDependentRoute, match="fill: 'user'"):
        table(app_of(limited(filling("user")(me)))).audit()


def test_the_mark_of_wireup_is_no_value(table) -> None:
    """FastAPI hands on a mark; the wrapper puts what a container makes of the request in its place."""

    def mark() -> object: ...

    mark.__is_wireup_depends__ = True  # type: ignore[attr-defined]

    def handler(user: Annotated[Any, Depends(mark)]) -> str:
        return user

    for source, starts in (("_wireup_singleton_factories[it]", True), ("_wireup_scoped_factories[it]", False)):
        wrapper = plainly(handler)
        wrapper.__wireup_generated_code__ = f"kwargs['user'] = {source}.factory(scope)"
        if starts:
            table(app_of(wrapper)).audit()
        else:
            with pytest.raises(CallerDependentRoute, match="fill: 'user'"):
                table(app_of(wrapper)).audit()
