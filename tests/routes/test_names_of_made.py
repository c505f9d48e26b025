"""What a dependency was made from stands in its author's code alone: no line has it, and no text makes another."""

from __future__ import annotations

import ast
import re
import sys
from enum import Enum
from types import ModuleType
from typing import Annotated, Any

import pytest
from fastapi import Cookie, Depends, FastAPI, Header, Security
from fastapi.security import SecurityScopes

from fastapi_cacheinval import CallerDependentRoute, RefusedRoute, cached
from tests.helpers.advice import line_in

DEPS = """
import functools
from typing import Annotated
from fastapi import Depends, Header, HTTPException
from fastapi.security import OAuth2PasswordBearer
from fastapi_cacheinval import PartitionBy, cached

oauth2 = OAuth2PasswordBearer(tokenUrl="token")
Token = Annotated[str, Depends(oauth2)]

def make(role):
    def guard(token: Token) -> str: return token
    return guard

def make_deep(role):
    def inner():
        def guard(token: Token) -> str: return token
        return guard
    return inner()

make_small = lambda role: lambda token=Depends(oauth2): token

class Perm:
    def __init__(self, name): self.name = name
    def __call__(self, token: Token) -> str: return token
    def ask(self, token: Token) -> str: return token
    other = ask
    @classmethod
    def of_class(cls, token: Token) -> str: return token
    @staticmethod
    def alone(token: Token) -> str: return token
    @classmethod
    def make(cls, name):
        def guard(token: Token) -> str: return token
        return guard
    class Inner:
        def __call__(self, token: Token) -> str: return token

class Import(Perm): ...
class Print(Perm): ...
class User:
    def __init__(self, token: Token) -> None: self.name = token

def with_more(more, token: Token) -> str: return token

def renames(function):
    def wrapper(token: Token) -> str: return function(token)
    return wrapper

def keeps_names(function):
    @functools.wraps(function)
    def wrapper(*args, **values): return function(*args, **values)
    return wrapper

@renames
def renamed(token: Token) -> str: return token
@keeps_names
def decorated(token: Token) -> str: return token
def plain(token: Token) -> str: return token
def twice(token: Token) -> str: return token
first = twice
def twice(token: Token) -> str: return token
made = []
for _ in range(2):
    def looped(token: Token) -> str: return token
    made.append(looped)

perm = Perm("held")
aliased = perm.other
_hidden = make("hidden")

class Held:
    perm = Perm("held")
    guard = make("held")
held = Held()
held.read = Perm("read")
held.bound = functools.partial(with_more, "a")

def key_of(value): return value
def key_for(part): return lambda value: value
"""
# Each with what the route's module imports, and the dependency.
MADE = [
    ("import deps", "deps.make('admin')"),
    ("from deps import make as role", "role('admin')"),
    ("from deps import make as guard", "guard('admin')"),
    ("import deps", "deps.make_deep('admin')"),
    ("import deps", "deps.make_small('admin')"),
    ("from deps import Perm as P", "P('a')"),
    ("import deps", "deps.Perm('a').ask"),
    ("import deps", "deps.Perm('a').__call__"),
    ("import deps", "deps.Perm('a').other"),
    ("import deps", "deps.Perm.make('a')"),
    ("import deps", "deps.Perm.Inner()"),
    ("import deps", "deps.Import('a')"),
    ("import deps", "deps.Print('a')"),
    ("import deps", "type(deps.oauth2)(tokenUrl='other')"),
    ("import deps, functools", "functools.partial(deps.with_more, 'a')"),
    ("from deps import with_more; import functools", "functools.partial(with_more, 'a')"),
    ("import deps, functools", "functools.partial(deps.make('a'))"),
    ("import deps, functools", "functools.partial(deps.Perm('a'))"),
    ("import deps, functools", "functools.partial(deps.Perm('a').ask)"),
    ("import deps, functools", "functools.partial(functools.partial(deps.with_more, 'a'))"),
    ("import deps", "deps.keeps_names(deps.make('a'))"),
    ("import deps", "deps.renames(deps.plain)"),
    ("import deps", "deps.keeps_names(deps.plain)"),
    ("import deps", "lambda token=Depends(deps.oauth2): token"),
    ("import deps", "deps.made[0]"),
    ("import deps", "deps._hidden"),
    ("import deps, types", "types.MethodType(deps.with_more, deps.perm)"),
]
HELD = [
    ("import deps", "deps.renamed"),
    ("import deps", "deps.decorated"),
    ("import deps", "deps.first"),
    ("from deps import first as twice", "twice"),
    ("from deps import first", "first"),
    ("import deps", "deps.twice"),
    ("import deps", "deps.made[1]"),
    ("import deps", "deps.aliased"),
    ("import deps", "deps.Perm.alone"),
    ("import deps", "deps.Perm('a').of_class"),
    ("import deps", "deps.User"),
    ("from deps import _hidden", "_hidden"),
    ("from deps import held", "held.read"),
    ("from deps import held", "held.bound"),
    ("from deps import held", "held.read.ask"),
    ("from deps import Held", "Held.perm"),
    ("from deps import Held", "Held.guard"),
    ("from deps import make; admin = make('admin')", "admin"),
    ("from deps import plain; kept = Depends(plain); plain = None", "kept.dependency"),
]
START = "from fastapi import Depends, FastAPI, Security\nfrom fastapi_cacheinval import PartitionBy, cached\n"


@pytest.fixture
def module(monkeypatch) -> ModuleType:
    """The module of a route, beside one that has the dependencies."""
    deps, routes = ModuleType("deps"), ModuleType("routes")
    for made in (deps, routes):
        monkeypatch.setitem(sys.modules, made.__name__, made)
    exec(DEPS, vars(deps))
    return routes


class Scope(str, Enum):  # noqa: UP042 - as FastAPI's users write scopes
    """What a caller may do."""

    READ = "items:read"


def user_for(scopes: SecurityScopes, x_user: Annotated[str, Header()]) -> str:
    """Who is calling, if the scopes let them."""
    return x_user if scopes.scopes else ""


def app_of(module: ModuleType, policy: str, dependency: Any) -> FastAPI:
    """The app of a route of the module, whose policy is written there."""
    exec("def it(): ...", vars(module))
    app = FastAPI(openapi_url=None)
    app.get("/it", dependencies=[eval(policy, vars(module)), Depends(dependency)])(vars(module)["it"])
    return app


def written_in(module: ModuleType, imported: str, text: str) -> Any:
    exec(f"{START}{imported}", vars(module))
    return eval(text, vars(module))


def advice_of(table: Any, app: FastAPI) -> str:
    with pytest.raises(CallerDependentRoute) as refused:
        table(app).audit()
    return refused.value.advice


@pytest.mark.parametrize(("imported", "dependency"), MADE)
def test_what_has_no_name_is_given_one(table, module: ModuleType, imported: str, dependency: str) -> None:
    """One that is free, can be written, and is the line's; what stands beside it does not run, and so makes none."""
    made = written_in(module, imported, dependency)
    advice = advice_of(table, app_of(module, "cached(ttl=60)", made))
    ((name, text),) = re.findall(
        r"before the route: (\S+) = (<.*? as it stands now>)\. Write \1 in its place\.", advice
    )
    assert name.isidentifier()
    assert name not in vars(module)
    assert line_in(advice) == f"guarded_by={name}"
    assert "<locals>" not in advice
    with pytest.raises(SyntaxError):
        ast.parse(f"{name} = {text}")
    ast.parse(f"{name} = 1")
    vars(module)[name] = made
    table(app_of(module, f"cached(ttl=60, {line_in(advice)})", made)).audit()


@pytest.mark.parametrize(("imported", "dependency"), HELD)
def test_what_has_a_name_is_named_by_it(table, module: ModuleType, imported: str, dependency: str) -> None:
    """Pasted where the route is, the line names the same dependency."""
    made = written_in(module, imported, dependency)
    advice = advice_of(table, app_of(module, "cached(ttl=60)", made))
    assert "before the route" not in advice
    for needed in re.findall(r"Import first: (.*?)\. ", advice):
        exec(needed, vars(module))
    table(app_of(module, f"cached(ttl=60, {line_in(advice)})", made)).audit()


@pytest.mark.parametrize(
    ("imported", "key", "written"),
    [
        ("import deps", "deps.key_of", "deps.key_of"),
        ("from deps import key_of as by_name", "by_name", "by_name"),
        ("import deps", "deps.key_for('a')", "..."),
        ("import deps", "str", "str"),
        ("import deps; str = repr", "type('')", "..."),
        ("import deps", "deps.Perm('a').__call__", "..."),
    ],
)
def test_a_key_is_written_as_its_author_can(table, module: ModuleType, imported: str, key: str, written: str) -> None:
    """Or it is left as it is: a bare name may be that of another function."""
    policy = f"cached(ttl=60, partition_by=PartitionBy(deps.plain, key={key}))"
    made = written_in(module, f"import deps; {imported}", "deps.renamed")
    advice = advice_of(table, app_of(module, policy, made))
    assert f"partition_by=PartitionBy(deps.plain, key={written})" in line_in(advice)


def test_each_partition_of_a_line_is_named_first(table, module: ModuleType) -> None:
    """Also one that no mistake is made with."""
    policy = "cached(ttl=60, partition_by=(deps.make('a'), deps.User))"
    app = app_of(module, policy, written_in(module, "import deps", "deps.oauth2"))
    with pytest.raises(RefusedRoute, match="guard = <the guard of make") as refused:
        table(app).audit()
    assert "partition_by=(guard, PartitionBy(deps.User" in str(refused.value)


def test_a_warning_that_names_a_dependency_gives_it_a_name(table, module: ModuleType) -> None:
    """It proposes to declare it in a list."""
    exec(
        f"{START}import deps\nfrom fastapi import APIRouter\napp = FastAPI(openapi_url=None)\n"
        "app.get('/page', dependencies=[cached(ttl=60)])(page := lambda: 1)\n"
        "app.post('/page', dependencies=[cached(ttl=60, guarded_by=deps.make('a'))])(page)",
        vars(module),
    )
    warnings = [each for each in table(vars(module)["app"]).warnings() if "Depends(guard)" in each]
    assert warnings
    assert all("before the route: guard = <the guard of make(...) as it stands now>" in each for each in warnings)


@pytest.mark.parametrize("handler", ["functools.partial(page, 1)", "Page()", "Page().__call__"])
def test_the_names_of_a_handlers_module_are_taken_whatever_the_handler_is(
    table, module: ModuleType, handler: str
) -> None:
    """A partial, an object that is called and its method are written in a module, too: `guard` is taken in it."""
    exec(
        f"{START}import deps, functools\ndef page(number): return number\n"
        "class Page:\n    def __call__(self): return 1\n"
        "guard = deps.make('admin')\napp = FastAPI(openapi_url=None)\n"
        f"app.get('/', dependencies=[cached(ttl=60), Depends(deps.make('a'))])({handler})",
        vars(module),
    )
    assert line_in(advice_of(table, vars(module)["app"])) == "guarded_by=guard_2"


@pytest.mark.parametrize("declares", [True, False])
def test_a_line_says_whose_names_it_has_where_the_route_may_be_declared_elsewhere(
    table, module: ModuleType, declares: bool
) -> None:
    """A module without an app or a router holds handlers that another one declares; there a name may be another's."""
    app = app_of(module, "cached(ttl=60)", written_in(module, "from deps import renamed as by", "by"))
    vars(module)["app"] = app if declares else None
    says = advice_of(table, app)
    assert says.endswith(": cached(..., guarded_by=by).")
    assert ("this line works, with the names of routes: " in says) is not declares


def test_scopes_of_an_enum_are_written_as_texts(table) -> None:
    """As FastAPI compares them."""
    app = FastAPI(openapi_url=None)

    @app.get("/", dependencies=[cached(ttl=60)])
    def items(user: Annotated[str, Security(user_for, scopes=[Scope.READ])]) -> str:
        return user

    assert line_in(advice_of(table, app)) == "partition_by=Security(user_for, scopes=['items:read'])"


@pytest.mark.parametrize("answer", ["raise ImportError(name)", "return lambda: None"])
def test_a_module_that_loads_what_it_is_asked_for_ends_no_refusal(table, monkeypatch, answer: str) -> None:
    """Every loaded module is asked for its file where a source is looked for."""
    lazy = ModuleType("lazy")
    exec(f"def __getattr__(name): {answer}", vars(lazy))
    monkeypatch.setitem(sys.modules, "lazy", lazy)
    app = FastAPI(openapi_url=None)

    @app.get("/", dependencies=[cached(ttl=60)])
    def basket(session: Annotated[str, Cookie()]) -> str:
        return session

    with pytest.raises(RefusedRoute, match="session"):
        table(app).audit()
