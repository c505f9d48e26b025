"""The names in a refusal: those that the author can write, and a new one for each dependency that has none."""

# No postponed annotations: the handlers name callables of their own test.

import inspect
import re
import sys
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException
from fastapi.security import OAuth2PasswordBearer

from fastapi_cacheinval import CacheMiddleware, CallerDependentRoute, HTTPCache, PartitionBy, RefusedRoute, cached
from fastapi_cacheinval.testing import assert_hit
from tests.helpers.advice import left_by, line_in
from tests.helpers.http import ask

pytestmark = pytest.mark.anyio

oauth2 = OAuth2PasswordBearer(tokenUrl="token")


def check(token: str) -> str:
    if token not in ("alice", "bob"):
        raise HTTPException(401)
    return token


class HTTPPermission:
    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, token: Annotated[str, Depends(oauth2)]) -> str:
        return check(token)

    def ask(self, token: Annotated[str, Depends(oauth2)]) -> str:
        return check(token)

    @staticmethod
    def by_static(token: Annotated[str, Depends(oauth2)]) -> str:
        return check(token)

    @classmethod
    def by_class(cls, token: Annotated[str, Depends(oauth2)]) -> str:
        return check(token)


class Narrower(HTTPPermission):
    """Its `by_class` is another dependency."""


def role(name: str) -> Callable[..., str]:
    def has_role(token: Annotated[str, Depends(oauth2)]) -> str:
        return check(token)

    return has_role


def with_more(more: str, token: Annotated[str, Depends(oauth2)]) -> str:
    return check(token)


MADE: dict[str, Callable[[], Any]] = {
    "HTTPPermission(...)": lambda: HTTPPermission("a"),
    "HTTPPermission(...).ask": lambda: HTTPPermission("a").ask,
    "HTTPPermission(...).__call__": lambda: HTTPPermission("a").__call__,
    "the has_role of role(...)": lambda: role("a"),
    "partial(with_more, ...)": lambda: partial(with_more, "a"),
    "the lambda": lambda: lambda token=Depends(oauth2): check(token),  # noqa: B008 - what users write
}


def page(policy: Any, dependencies: list[Any], taken: Any) -> FastAPI:
    app = FastAPI(openapi_url=None)

    if taken is None:

        @app.get("/it", dependencies=[policy, *map(Depends, dependencies)])
        def read_page() -> str:
            return "for all"
    else:

        @app.get("/it", dependencies=[policy, *map(Depends, dependencies)])
        def read_own(token: Annotated[str, Depends(taken)]) -> str:
            return token

    return app


def advice_of(table: Any, app: FastAPI) -> str:
    with pytest.raises(CallerDependentRoute) as refused:
        table(app).audit()
    return str(refused.value.advice)


def made_in(advice: str) -> dict[str, str]:
    (told,) = re.findall(r"before the route: (.*?)\. Write", advice)
    given = dict(each.split(" = ", 1) for each in re.split(r", (?=\w+ = )", told))
    return {name: making.removeprefix("<").removesuffix(" as it stands now>") for name, making in given.items()}


@pytest.mark.parametrize("taken", [False, True], ids=["listed", "taken"])
@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("making", MADE)
async def test_what_is_made_in_place_is_named_first(table, making: str, count: int, taken: bool) -> None:
    """With the names that the message gives, the line that it says starts, and a revoked token gets its 401."""
    objects = [MADE[making]() for _ in range(count)]
    handed = MADE[making]() if taken else None
    advice = advice_of(table, page(cached(ttl=60), objects, handed))
    names = made_in(advice)
    assert set(names.values()) == {making}
    assert len(names) == count + taken
    assert all(name.isidentifier() and "__" not in name and name not in globals() for name in names)
    written = dict(zip(names, [*objects, *([handed] if taken else [])], strict=True))
    line = line_in(advice)
    app = page(eval(f"cached(ttl=60, {line})", {**globals(), **written}), objects, handed)
    app.add_middleware(CacheMiddleware, cache=HTTPCache())
    for _ in range(2):
        for token in ("alice", "bob"):
            answer = await ask(app, "/it", headers={"authorization": f"Bearer {token}"})
            assert answer.body.decode() == (f'"{token}"' if taken else '"for all"')
    assert_hit(answer)
    assert (await ask(app, "/it", headers={"authorization": "Bearer mallory"})).status_code == 401


def test_a_cover_that_is_made_in_place_is_another_dependency(table) -> None:
    """The message says so, names both before it speaks of them, and says how one does."""
    app = page(cached(ttl=60, guarded_by=HTTPPermission("a")), [HTTPPermission("a")], None)
    advice = advice_of(table, app)
    assert "guarded_by=http_permission falls short: it does not cover http_permission_2." in advice
    assert advice.index("http_permission_2 = ") < advice.index("falls short")
    assert "make it once, and write http_permission in both places" in advice
    assert "what is made twice is two" in advice
    assert "this line works: cached(..., guarded_by=(http_permission, http_permission_2))." in advice


def test_what_is_made_in_another_way_is_no_twin(table) -> None:
    """Nothing speaks for one of the two in place of both."""
    advice = advice_of(table, page(cached(ttl=60, guarded_by=role("a")), [HTTPPermission("a")], None))
    assert "falls short" in advice
    assert "in both places" not in advice


@pytest.mark.parametrize(
    ("dependency", "spelled"),
    [
        (HTTPPermission.by_static, "HTTPPermission.by_static"),
        (HTTPPermission.by_class, "HTTPPermission.by_class"),
        (Narrower.by_class, "Narrower.by_class"),
    ],
)
def test_a_method_is_written_with_its_class(table, dependency: Any, spelled: str) -> None:
    """Its own name alone is none that a policy could write."""
    advice = advice_of(table, page(cached(ttl=60), [dependency], None))
    assert f"this line works: cached(..., guarded_by={spelled})." in advice
    assert "before the route" not in advice


@pytest.fixture
def elsewhere():
    """A module that holds a permission, and a function of a name that this module has too."""
    made = ModuleType("tests.shop.security")
    vars(made)["can_write"] = HTTPPermission("write")
    exec(
        "def check(token: Annotated[str, Depends(oauth2)]):\n    return token",
        {**globals(), "__name__": "tests.shop.security"},
        vars(made),
    )
    sys.modules["tests.shop.security"] = made
    yield made
    del sys.modules["tests.shop.security"]


@pytest.mark.parametrize("name", ["can_write", "check"])
def test_what_another_module_holds_is_written_with_that_module(table, elsewhere: Any, name: str) -> None:
    """An object that is imported as part of it, and a function whose bare name means another one here."""
    advice = advice_of(table, page(cached(ttl=60), [getattr(elsewhere, name)], None))
    assert f"this line works: cached(..., guarded_by=security.{name})." in advice


def test_what_an_imported_module_holds_is_written_by_its_name_here(table, monkeypatch) -> None:
    """Whatever package it is of."""
    made = ModuleType("library.permissions")
    vars(made)["reader"] = HTTPPermission("read")
    monkeypatch.setitem(globals(), "allowed", made)
    advice = advice_of(table, page(cached(ttl=60), [vars(made)["reader"]], None))
    assert "this line works: cached(..., guarded_by=allowed.reader)." in advice


def test_a_name_under_which_it_is_imported_is_the_best(table, monkeypatch) -> None:
    """That of the module that the handler is written in."""
    monkeypatch.setitem(globals(), "writers", HTTPPermission("write"))
    monkeypatch.setitem(globals(), "readers", role("read"))
    advice = advice_of(table, page(cached(ttl=60), [globals()["writers"], globals()["readers"]], None))
    assert "this line works: cached(..., guarded_by=(writers, readers))." in advice


def test_a_name_of_the_function_that_makes_the_app_is_one(table) -> None:
    """Its author writes both there; nothing has to be made first."""

    def require(token: Annotated[str, Depends(oauth2)]) -> None:
        check(token)

    app = FastAPI(openapi_url=None)

    @app.get("/it", dependencies=[cached(ttl=60), Depends(require)])
    def read_page() -> str:
        return ""

    assert advice_of(table, app) == f"{left_by('require')}cached(..., guarded_by=require)."


def test_a_new_name_is_none_that_the_module_has(table, monkeypatch) -> None:
    """To write it would replace what is there."""
    monkeypatch.setitem(globals(), "http_permission", "taken")
    advice = advice_of(table, page(cached(ttl=60), [HTTPPermission("a")], None))
    assert "http_permission_2 = <HTTPPermission(...) as it stands now>" in advice


@pytest.mark.parametrize(
    ("of", "taken", "told"),
    [
        ("paging.api", None, True),
        (__name__, None, False),
        ("paging.api", role("other"), True),
        ("paging.api", ..., False),
    ],
    ids=["a library's", "one's own", "after others", "taken by a parameter"],
)
def test_what_a_library_may_have_added_is_said(table, of: str, taken: Any, told: bool) -> None:
    """It is made at the start, and the line that names it would be refused again: only its author can leave it out."""
    made = role("any")
    made.__module__ = of
    app = page(cached(ttl=60), [made], taken) if taken is not ... else page(cached(ttl=60), [], made)
    advice = advice_of(table, app)
    assert ("If paging adds it to the route by itself, keep it from that" in advice) is (told and taken is None)


def test_a_partition_of_a_wrong_type_that_is_made_in_place_is_named_first(table) -> None:
    """The line that it is told names the object too."""

    class Row:
        def __call__(self, token: Annotated[str, Depends(oauth2)]) -> list[str]:
            return [token]

    app = page(cached(ttl=60, partition_by=Row()), [], None)
    with pytest.raises(RefusedRoute, match=r"PartitionBy\(row, key=.*before the route: row = <Row\(\.\.\.\) as it"):
        table(app).audit()


SHOP = """
def user(token: Annotated[str, Depends(oauth2)]) -> str:
    return check(token)

class Space:
    class Inner:
        @staticmethod
        def deep(token: Annotated[str, Depends(oauth2)]) -> str:
            return check(token)

        @classmethod
        def of_class(cls, token: Annotated[str, Depends(oauth2)]) -> str:
            return check(token)

CurrentUser = Annotated[str, Depends(user)]
REGISTRY = {"user": user}
can_read = HTTPPermission("read")
"""
WRITTEN = [
    ("from shop import deps", "str = Depends(deps.user)", "", "deps.user"),
    ("import shop.deps as d", "str = Depends(d.user)", "", "d.user"),
    ("import shop.deps", "str = Depends(shop.deps.user)", "", "shop.deps.user"),
    ("import shop.deps", "str = Depends(shop.deps.Space.Inner.deep)", "", "shop.deps.Space.Inner.deep"),
    ("from shop import deps as d", "str = Depends(d.can_read)", "", "d.can_read"),
    ("from shop.deps import Space as S", "str = Depends(S.Inner.deep)", "", "S.Inner.deep"),
    ("from shop.deps import Space as S", "str = Depends(S.Inner.of_class)", "", "S.Inner.of_class"),
    ("from shop.deps import CurrentUser", "CurrentUser", "from shop.deps import user", "user"),
    ("from shop.deps import REGISTRY", "str = Depends(REGISTRY['user'])", "from shop.deps import user", "user"),
    ("from shop.deps import CurrentUser as C; user = 1", "C", "from shop import deps", "deps.user"),
    ("from shop.deps import Space as S; D = Depends(S.Inner.deep); del S", "str = D", "from shop.deps import Space", "Space.Inner.deep"),
    ("from shop.deps import can_read; D = Depends(can_read); del can_read", "str = D", "from shop import deps", "deps.can_read"),
]  # fmt: skip


@pytest.mark.parametrize(("imported", "taken", "needed", "name"), WRITTEN)
def test_a_line_can_be_written_where_its_route_is(table, monkeypatch, imported, taken, needed, name) -> None:
    """By the names that the route's module has, and else by one that the message has it import."""
    package, deps, routes = ModuleType("shop"), ModuleType("shop.deps"), ModuleType("shop.routes")
    for made in (package, deps, routes):
        monkeypatch.setitem(sys.modules, made.__name__, made)
    vars(package).update(deps=deps, routes=routes, __path__=[])
    public = {name: value for name, value in globals().items() if name[0] != "_" and name != "role"}
    vars(deps).update(public)
    exec(SHOP, vars(deps))
    vars(routes).update(Annotated=Annotated, Depends=Depends, router=APIRouter())
    exec(f"{imported}\ndef handler(who: {taken}): return who", vars(routes))
    app = FastAPI(openapi_url=None)
    app.get("/it", dependencies=[cached(ttl=60)])(vars(routes)["handler"])
    advice = advice_of(table, app)
    first = f"Import first: {needed}. " if needed else ""
    assert advice == f"{first}{left_by(name)}cached(..., partition_by={name})."
    exec(needed, vars(routes))
    vars(routes)["policy"] = cached(ttl=60, partition_by=eval(name, vars(routes)))
    again = FastAPI(openapi_url=None)
    again.get("/it", dependencies=[vars(routes)["policy"]])(vars(routes)["handler"])
    table(again).audit()


def test_a_local_name_is_that_of_the_function_around_the_route(table, monkeypatch) -> None:
    """A dependency of the module that has the same name cannot be written there by it."""
    exec("def user(token: Annotated[str, Depends(oauth2)]) -> str: return token", made := {**globals()})
    outer = made["user"]

    def user(token: Annotated[str, Depends(oauth2)]) -> str:
        return check(token)

    def it(who: Annotated[str, Depends(user)], other: Annotated[str, Depends(outer)]) -> str:
        return who + other

    monkeypatch.setitem(globals(), "user", outer)
    app = FastAPI(openapi_url=None)
    app.get("/it", dependencies=[cached(ttl=60)])(it)
    advice = advice_of(table, app)
    assert advice.startswith("Import first: from tests.routes import test_names. ")
    assert line_in(advice) == "partition_by=(user, test_names.user)"


permission = HTTPPermission("a")


class Same(HTTPPermission):
    """All with one name are equal, as frozen dataclasses are."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self.name == other.name

    def __hash__(self) -> int:
        return hash(self.name)


same = Same("a")


@pytest.mark.parametrize(
    ("first", "second", "name"),
    [
        (lambda: permission.ask, lambda: permission.ask, "permission.ask"),
        (lambda: HTTPPermission.by_class, lambda: permission.by_class, "HTTPPermission.by_class"),
        (lambda: Same("a"), lambda: same, "same"),
        (lambda: same, lambda: Same("a"), "same"),
    ],
)
def test_what_fastapi_takes_for_one_dependency_has_one_name(table, first: Any, second: Any, name: str) -> None:
    """Wherever it stands, and whether or not both are the same object."""

    def it(who: Annotated[str, Depends(second())]) -> str:
        return who

    app = FastAPI(openapi_url=None)
    app.get("/it", dependencies=[cached(ttl=60), Depends(first())])(it)
    with pytest.raises(CallerDependentRoute) as refused:
        table(app).audit()
    assert line_in(refused.value.advice) == f"partition_by={name}"


def test_a_line_that_names_the_class_around_its_route_is_to_stand_outside(table) -> None:
    """As libraries for class-based views have it: inside of the class its name is not known yet."""

    def build(*policy: Any) -> APIRouter:
        router = APIRouter()

        class View:
            def __init__(self, token: Annotated[str, Depends(oauth2)]) -> None:
                self.token = token

            def page(self) -> str:
                return self.token

        # What such a library does once the class is there.
        parameter = inspect.Parameter("self", inspect.Parameter.KEYWORD_ONLY, default=Depends(View))
        View.page.__signature__ = inspect.Signature([parameter])  # type: ignore[attr-defined]
        router.get("/it", dependencies=[*policy])(View.page)
        views.append(View)
        return router

    views: list[Any] = []
    app = FastAPI(openapi_url=None)
    app.include_router(build(cached(ttl=60, partition_by=oauth2)))
    with pytest.raises(CallerDependentRoute) as refused:
        table(app).audit()
    assert (
        "View.page is declared inside of View, where that name is not known yet: take its cached() away, and give "
        "include_router() of its router this one, in dependencies=[...]. There it counts for every GET of that router: "
        "write cached(ttl=0) at those that are not to be cached. "
    ) in refused.value.advice
    app, router = FastAPI(openapi_url=None), build()
    policy = cached(ttl=60, partition_by=(oauth2, PartitionBy(views[-1], key=lambda view: view.token)))
    app.include_router(router, dependencies=[policy])
    table(app).audit()
