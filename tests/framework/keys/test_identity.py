"""What a route is by name: the same in every process, and another one for another factory's value."""

from __future__ import annotations

import dataclasses
import enum
import functools
import operator
import threading
import uuid
from collections.abc import Callable
from typing import Annotated, Any

import httpx
import pydantic
import pytest
from fastapi import Cookie, Depends, FastAPI, Header, Security
from fastapi.security import OAuth2PasswordBearer, SecurityScopes
from starlette.routing import Host

from fastapi_cacheinval import CachePolicy, PartitionBy, cached
from fastapi_cacheinval.routes.held_values import qualified_name
from fastapi_cacheinval.routes.identity import plain_values
from fastapi_cacheinval.routes.middleware_stack import middleware_stack_of
from fastapi_cacheinval.routes.plan import RoutePlan
from fastapi_cacheinval.routes.table import RouteTable


class Region(enum.Enum):
    EU = "eu"
    US = "us"


def plans(app: Any) -> list[RoutePlan]:
    """The plans of an app's cached routes."""
    table = RouteTable(app, middleware_stack_of(app))
    return [plan for plan in table.plans if plan.policy is not None]


def plan_of(app: Any) -> RoutePlan:
    """The plan of an app's only cached route."""
    [found] = plans(app)
    return found


def page_of(value: object) -> Callable[[], str]:
    """A handler that holds on to a value."""

    def page() -> str:
        return f"{value}"

    return page


def app_of(handler: Any, path: str = "/it", **options: Any) -> FastAPI:
    """An app with one cached route."""
    app = FastAPI()
    app.add_api_route(path, handler, dependencies=[cached(ttl=60, **options)])
    return app


def test_the_same_code_gives_the_same_identity_every_time() -> None:
    """Two replicas, each with an app, a handler and objects of its own."""
    one, two = plan_of(app_of(page_of("acme"))), plan_of(app_of(page_of("acme")))
    assert one.identity == two.identity
    assert one.known_everywhere


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("acme", "bolt"),
        (b"acme", b"bolt"),
        ("acme", b"acme"),
        (uuid.UUID(int=1), uuid.UUID(int=2)),
        (Region.EU, Region.US),
        (("acme", 1), ("bolt", 1)),
        (frozenset({"acme"}), frozenset({"bolt"})),
        (int, str),
        (page_of("acme"), page_of("bolt")),
        (functools.partial(print, "acme"), functools.partial(print, "bolt")),
        (functools.partial(print, end="acme"), functools.partial(print, end="bolt")),
    ],
)
def test_a_factorys_plain_values_tell_its_routes_apart(one: object, two: object) -> None:
    """`make_router(tenant)` gives handlers of one name: the tenant is in their closure."""
    assert plan_of(app_of(page_of(one))).identity != plan_of(app_of(page_of(two))).identity


class Settings:
    """A tenant's settings."""

    def __init__(self, name: str) -> None:
        self.name = name


class Slotted:
    """Its text stands in a slot."""

    __slots__ = ("__dict__", "_name", "never")

    def __init__(self, name: str) -> None:
        self._name = name

    def read(self) -> str:
        return self._name

    __call__ = read


@dataclasses.dataclass(slots=True)
class SlottedData:
    """The same by dataclasses."""

    name: str

    def read(self) -> str:
        return self.name


class Base:
    """Its text stands in the class."""

    name = ""

    def read(self) -> str:
        return self.name

    @classmethod
    def of_class(cls) -> str:
        return cls.name


class Acme(Base):
    name = "acme"


class Bolt(Base):
    name = "bolt"


class Silent(Base):
    """It says nothing more than its name."""


class Model(pydantic.BaseModel):
    name: str


class Hostile:
    """It answers every question by an error."""

    def __getattr__(self, name: str) -> object:
        raise RuntimeError(name)


def class_of(name: str) -> type:
    """A class dependency that a factory made."""

    class Made:
        def __init__(self) -> None:
            self.name = name

    return Made


def called_by_its_own(name: str) -> Any:
    """A class with a method that holds on to what its factory was given, which another method calls."""

    class Views:
        def _inner(self) -> str:
            return name

        def read(self) -> str:
            return self._inner()

    return Views().read


def depends_on(dependency: Any) -> Any:
    """A handler with a dependency."""
    depends = Depends(dependency)

    def page(value: Any = depends) -> str:
        return str(value)

    return page


TOLD_APART: list[tuple[str, Any, Any]] = [
    ("an object's attribute", page_of(Settings("acme")), page_of(Settings("bolt"))),
    ("a model", page_of(Model(name="acme")), page_of(Model(name="bolt"))),
    ("a held object's slot", page_of(Slotted("acme")), page_of(Slotted("bolt"))),
    ("a held object's class", page_of(Acme()), page_of(Bolt())),
    ("a held class made by a factory", page_of(type("S", (), {"n": "acme"})), page_of(type("S", (), {"n": "bolt"}))),
    ("a slot", Slotted("acme").read, Slotted("bolt").read),
    ("a callable's slot", Slotted("acme"), Slotted("bolt")),
    ("a dataclass's slot", SlottedData("acme").read, SlottedData("bolt").read),
    ("a class attribute", Acme().read, Bolt().read),
    ("an inherited method alone", Base().read, Silent().read),
    ("a class method", Acme.of_class, Bolt.of_class),
    ("a class dependency", depends_on(class_of("acme")), depends_on(class_of("bolt"))),
    ("a dependency's object", depends_on(Acme().read), depends_on(Bolt().read)),
    ("a method that a method calls", called_by_its_own("acme"), called_by_its_own("bolt")),
    ("an object in a partial", functools.partial(print, Settings("acme")), functools.partial(print, Settings("bolt"))),
    (
        "a callable object in a partial",
        functools.partial(Slotted("acme")),
        functools.partial(Slotted("bolt")),
    ),
    (
        "a function with a cache around it",
        page_of(functools.lru_cache(page_of("acme"))),
        page_of(functools.lru_cache(page_of("bolt"))),
    ),
]


@pytest.mark.parametrize(("one", "two"), [case[1:] for case in TOLD_APART], ids=[case[0] for case in TOLD_APART])
def test_text_tells_routes_apart_wherever_it_stands(one: Any, two: Any) -> None:
    """In objects, slots, classes and what factories have made of them."""
    assert plan_of(app_of(one)).identity != plan_of(app_of(two)).identity
    assert plan_of(app_of(one)).identity == plan_of(app_of(one)).identity


def test_an_object_that_answers_by_errors_is_no_trouble() -> None:
    """Attributes are read where they stand, and nobody's code runs."""
    loop: list[Any] = []
    loop.append(loop)
    for held in (Hostile(), loop, {"it": loop}):
        assert plan_of(app_of(page_of(held))).identity
        assert of(partition_by=page_of(held))


def test_what_python_and_libraries_keep_for_themselves_does_not_count() -> None:
    """It may differ in each process: the name of a thread, the state of a client."""
    one, two = threading.Thread(name="one"), threading.Thread(name="two")
    assert plan_of(app_of(page_of(one))).identity == plan_of(app_of(page_of(two))).identity
    client, used = httpx.Client(), httpx.Client()
    with used:
        assert plan_of(app_of(page_of(client))).identity == plan_of(app_of(page_of(used))).identity
    client.close()


@pytest.mark.parametrize(("one", "two"), [(1, 2), (1.5, 2.5), (object(), object()), ([], [1]), (None, object())])
def test_values_that_differ_between_replicas_do_not_count(one: object, two: object) -> None:
    """Numbers often number processes, and objects are each process's own: replicas still share."""
    assert plan_of(app_of(page_of(one))).identity == plan_of(app_of(page_of(two))).identity


def test_partials_methods_objects_and_defaults_are_looked_into() -> None:
    """A handler need not be a plain function."""

    def read(tenant: str) -> str:
        return tenant

    class Views:
        def __init__(self, tenant: str) -> None:
            self.tenant = tenant

        def read(self) -> str:
            return self.tenant

        def __call__(self) -> str:
            return self.tenant

    def by_default(tenant: str) -> Any:
        def page(tenant: str = tenant) -> str:
            return tenant

        return page

    def decorated(tenant: str) -> Any:
        inner = page_of(1)

        @functools.wraps(inner)
        def page() -> str:
            return tenant + inner()

        return page

    makers: list[Callable[[str], Any]] = [
        lambda tenant: functools.partial(read, tenant),
        lambda tenant: functools.partial(read, tenant=tenant),
        lambda tenant: Views(tenant).read,
        Views,
        by_default,
        decorated,
    ]
    for make in makers:
        values = plain_values(make("acme"))
        assert values == plain_values(make("acme"))
        assert values != plain_values(make("bolt"))


def test_a_function_that_holds_on_to_itself_or_to_nothing_yet_is_no_trouble() -> None:
    """Cycles end, and an empty cell is passed over."""

    def outer() -> Any:
        later: str

        def again() -> Any:
            return again, later

        found = again
        if not callable(found):
            later = "never"
        return found

    assert plain_values(outer()) == plain_values(outer())


def test_a_dependency_made_by_a_factory_counts_as_the_handler_does() -> None:
    """`Depends(database("acme"))` under one and the same handler."""

    def with_database(name: str) -> FastAPI:
        app = FastAPI(dependencies=[Depends(page_of(name))])
        app.add_api_route("/it", page_of(1), dependencies=[cached(ttl=60)])
        return app

    assert plan_of(with_database("acme")).identity == plan_of(with_database("acme")).identity
    assert plan_of(with_database("acme")).identity != plan_of(with_database("bolt")).identity


def test_the_handlers_name_has_its_module() -> None:
    """Two services that call a function alike are two."""
    assert qualified_name(page_of(1)) == f"{__name__}.page_of.<locals>.page"
    assert qualified_name(functools.partial(page_of, 1)) == f"{__name__}.page_of"
    assert qualified_name(OAuth2PasswordBearer("t")) == "fastapi.security.oauth2.OAuth2PasswordBearer"


def test_hosts_and_templates_count() -> None:
    """The same router under two hosts, and under two prefixes."""
    outer = FastAPI()
    for host in ("a.example", "b.example"):
        outer.router.routes.append(Host(host, app_of(page_of(1))))
    outer.mount("/one", app_of(page_of(1)))
    outer.mount("/two", app_of(page_of(1)))
    found = plans(outer)
    assert len({plan.identity for plan in found}) == len(found) == 4
    assert all(plan.known_everywhere for plan in found)


def test_twins_are_numbered_and_stay_in_their_process() -> None:
    """Two routes that nothing but their order tells apart: the order may be another one elsewhere."""
    app = FastAPI()
    for value in (1, 2):
        app.add_api_route("/it", page_of(value), dependencies=[cached(ttl=60)])
    app.add_api_route("/other", page_of(3), dependencies=[cached(ttl=60)])
    first, second, other = plans(app)
    assert first.identity == second.identity
    assert first.ordinal != second.ordinal
    assert not first.known_everywhere
    assert not second.known_everywhere
    assert other.known_everywhere


def test_overridden_plans_and_those_met_later_stay_in_their_process() -> None:
    """Another process may not override, or may count in another way."""
    app = app_of(page_of(1))
    table = RouteTable(app, middleware_stack_of(app))
    route = next(route for route in app.routes if getattr(route, "path", None) == "/it")
    scope = {"route": route, "path": "/it"}
    found = table.plan_for(scope)
    assert found is not None
    assert found.known_everywhere
    app.dependency_overrides[page_of] = page_of
    found = table.plan_for(scope)
    assert found is not None
    assert not found.known_everywhere
    stray = next(route for route in app_of(page_of(1)).routes if getattr(route, "path", None) == "/it")
    met = table.plan_for({"route": stray, "path": "/it"})
    assert met is not None
    assert not met.known_everywhere


# -- partitions -----------------------------------------------------------------------------------


def user_id() -> int:
    return 7


def tenant_id() -> int:
    return 7


def scoped(scopes: SecurityScopes) -> int:
    return 7


def of(**fields: Any) -> tuple[bytes, ...]:
    """What the covers of a route are."""
    return plan_of(app_of(page_of(1), **fields)).covered_by


def test_the_partition_is_named_by_its_dependency() -> None:
    """Tenant 7 is not user 7; the same dependency, however it is written, is the same."""
    assert of(partition_by=user_id) != of(partition_by=tenant_id)
    assert of(partition_by=user_id) == of(partition_by=Depends(user_id)) == of(partition_by=(user_id,))
    assert of() == ()


def test_a_guard_is_named_as_a_partition_is() -> None:
    """Those whom another release's guard lets in are not handed what this one's has let through."""
    assert of(guarded_by=user_id) != of(guarded_by=tenant_id) != of(partition_by=tenant_id)
    assert of(guarded_by=user_id) == of(guarded_by=Depends(user_id)) == of(guarded_by=(user_id,))
    assert of(guarded_by=Security(scoped, scopes=["read"])) != of(guarded_by=Security(scoped, scopes=["write"]))
    assert of(guarded_by=principal_of(by_id)) != of(guarded_by=principal_of(by_team))
    assert of(guarded_by=by_id, partition_by=by_team) != of(guarded_by=by_team, partition_by=by_id)
    assert plan_of(app_of(page_of(1), guarded_by=principal_of(by_id))).known_everywhere


def by_id(x_user: Annotated[str, Header()]) -> str:
    return x_user


def by_team(x_user: Annotated[str, Header()]) -> str:
    return x_user


def principal_of(inner: Any) -> Any:
    """A cover over another dependency."""

    def principal(value: str = Depends(inner)) -> str:
        return value

    return principal


def nth(index: int) -> Any:
    """A key that shows nothing but a number."""

    def key(value: Any) -> Any:
        return value[index]

    return key


def keyed(key: Any) -> PartitionBy:
    """A partition by the key of what a dependency gives."""
    return PartitionBy(by_id, key=key)


def keyed_by_itself(cover: Any) -> PartitionBy:
    return PartitionBy(cover, key=str)


class Unnamed:
    """Stands for what is written in C and says nothing of itself: its class has no method in Python."""

    __call__ = operator.attrgetter("id")


OTHER_PARTITIONS: list[tuple[str, Any, Any]] = [
    ("attrgetter", keyed(operator.attrgetter("id")), keyed(operator.attrgetter("team"))),
    ("attrgetter of several", keyed(operator.attrgetter("id", "a")), keyed(operator.attrgetter("id", "b"))),
    ("itemgetter", keyed(operator.itemgetter("sub")), keyed(operator.itemgetter("tenant"))),
    ("itemgetter by place", keyed(operator.itemgetter(0)), keyed(operator.itemgetter(1))),
    ("itemgetter by slice", keyed(operator.itemgetter(slice(1))), keyed(operator.itemgetter(slice(2)))),
    ("methodcaller", keyed(operator.methodcaller("get", "sub")), keyed(operator.methodcaller("get", "tenant"))),
    (
        "methodcaller by name",
        keyed(operator.methodcaller("get", key="a")),
        keyed(operator.methodcaller("get", key="b")),
    ),
    ("a held getter", keyed(page_of(operator.itemgetter("a"))), keyed(page_of(operator.itemgetter("b")))),
    ("a method of a C class", keyed(str.lower), keyed(bytes.lower)),
    ("a number", keyed(nth(0)), keyed(nth(1))),
    ("a partial's number", keyed(functools.partial(pow, 2)), keyed(functools.partial(pow, 3))),
    ("a mapping", keyed(page_of({"a": 1})), keyed(page_of({"a": 2}))),
    ("another sub-dependency", principal_of(by_id), principal_of(by_team)),
    ("one further down", principal_of(principal_of(by_id)), principal_of(principal_of(by_team))),
    ("a slot", Slotted("id"), Slotted("team")),
    ("a held slot", page_of(Slotted("id")), page_of(Slotted("team"))),
    ("an inherited method", Acme().read, Silent().read),
    ("an inherited class method", Acme.of_class, Silent.of_class),
    ("a number in a cover", functools.partial(nth, 1), functools.partial(nth, 2)),
]


@pytest.mark.parametrize(
    ("one", "two"), [case[1:] for case in OTHER_PARTITIONS], ids=[case[0] for case in OTHER_PARTITIONS]
)
def test_partitions_of_other_things_have_other_names(one: Any, two: Any) -> None:
    """A release that partitions by something else is not handed what this one has stored."""
    assert of(partition_by=one) != of(partition_by=two)
    assert of(partition_by=one) == of(partition_by=one)
    assert plan_of(app_of(page_of(1), partition_by=one)).known_everywhere


def test_functions_of_one_name_and_another_code_are_other_partitions() -> None:
    """A release may change what a function does and leave its name."""
    one: dict[str, Any] = {"__name__": "shop"}
    two: dict[str, Any] = {"__name__": "shop"}
    exec("def user(value: int = 0): return value", one)
    exec("def user(value: int = 0): return value // 2", two)
    assert qualified_name(one["user"]) == qualified_name(two["user"])
    assert of(partition_by=one["user"]) != of(partition_by=two["user"])
    assert of(partition_by=keyed(one["user"])) != of(partition_by=keyed(two["user"]))


@pytest.mark.parametrize("around", [lambda cover: cover, principal_of, keyed_by_itself])
@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("x_user: Annotated[str, Header()]): return x_user", "x_team: Annotated[str, Header()]): return x_team"),
        ("of: Annotated[str, Header(alias='a')]): return of", "of: Annotated[str, Header(alias='b')]): return of"),
        ("of: Annotated[str, Header()]): return of", "of: Annotated[str, Cookie()]): return of"),
        ("of: Annotated[str, Header()]): return of", "of: str): return of"),
        ("a: Annotated[str, Header()], b: str): return a", "b: str, a: Annotated[str, Header()]): return b"),
        ("a: str, b: str): return a", "b: str, a: str): return b"),
        (
            "a_b: Annotated[str, Header()]): return a_b",
            "a_b: Annotated[str, Header(convert_underscores=False)]): return a_b",
        ),
        ("of: Annotated[One, Header()]): return of.it", "of: Annotated[Two, Header()]): return of.it"),
    ],
)
def test_what_a_partition_reads_of_the_request_is_in_its_name(around: Any, one: str, two: str) -> None:
    """Tenant 7 is not user 7, though name, code and value are the same."""
    models = {
        name: pydantic.create_model("Model", it=(str, pydantic.Field(alias=name)), __module__="shop")
        for name in ("One", "Two")
    }
    made: list[Any] = []
    for source in (one, two, one):
        space: dict[str, Any] = {
            "__name__": "shop",
            "Annotated": Annotated,
            "Cookie": Cookie,
            "Header": Header,
            **models,
        }
        exec(f"def caller({source}", space)
        made.append(of(partition_by=around(space["caller"])))
    assert made[0] != made[1]
    assert made[0] == made[2]


@pytest.mark.parametrize(
    "unnamed",
    [
        {"a": 1}.get,
        functools.partial({"a": 1}.get),
        page_of({"a": 1}.get),
        operator.itemgetter(object()),
        Unnamed(),
    ],
)
def test_a_partition_by_what_has_no_name_stays_in_its_process(unnamed: Any) -> None:
    """Another release may use another such thing under the same names."""
    plan = plan_of(app_of(page_of(1), partition_by=keyed(unnamed)))
    assert not plan.known_everywhere
    assert plan.nameless


def test_the_order_of_a_tuple_its_scopes_and_its_factory_count() -> None:
    """(user, tenant) is not (tenant, user); read is not write; two dependencies of one factory are two."""
    assert of(partition_by=(user_id, tenant_id)) != of(partition_by=(tenant_id, user_id))
    assert of(partition_by=(user_id,)) != of(partition_by=(user_id, user_id))
    assert of(partition_by=Security(scoped, scopes=["read"])) != of(partition_by=Security(scoped, scopes=["write"]))
    assert of(partition_by=Security(scoped, scopes=["a", "b"])) == of(partition_by=Security(scoped, scopes=["b", "a"]))
    assert of(partition_by=page_of("tenant")) != of(partition_by=page_of("user"))


def test_lambdas_of_one_place_are_told_apart_by_their_code() -> None:
    """They all have one name; a release that changes one is another release of the key."""
    in_a_set, in_the_same_set = [eval("lambda: 'x' in {'acme', 'bolt', 'coil'}") for _ in range(2)]
    assert of(partition_by=lambda: 1) != of(partition_by=lambda: 2)
    assert of(partition_by=lambda: user_id() + 1) != of(partition_by=lambda: tenant_id() + 1)
    assert of(partition_by=lambda: lambda: 1) != of(partition_by=lambda: lambda: 2)
    assert of(partition_by=in_a_set) == of(partition_by=in_the_same_set)
    assert of(partition_by=functools.partial(lambda given: 1, given=0)) != of(
        partition_by=functools.partial(lambda given: 2, given=0)
    )


def test_scopes_that_an_include_adds_count() -> None:
    """FastAPI hands them to the dependency, which may give another value for them."""

    def under(scope: str) -> tuple[bytes, ...]:
        app = FastAPI()
        policy = CachePolicy(ttl=60, partition_by=scoped)
        app.add_api_route("/it", page_of(1), dependencies=[Security(cached(policy).dependency, scopes=[scope])])
        return plan_of(app).covered_by

    assert under("read") != under("write")
