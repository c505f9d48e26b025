"""What a route is by name: the same in every process, and another one for another factory's value."""

from __future__ import annotations

import enum
import functools
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import Depends, FastAPI, Security
from fastapi.security import OAuth2PasswordBearer, SecurityScopes
from starlette.routing import Host

from fastapi_cacheinval import CachePolicy, cached
from fastapi_cacheinval.routes.identity import name_of, plain_values
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
    assert name_of(page_of(1)) == f"{__name__}.page_of.<locals>.page"
    assert name_of(functools.partial(page_of, 1)) == f"{__name__}.page_of"
    assert name_of(OAuth2PasswordBearer("t")) == "fastapi.security.oauth2.OAuth2PasswordBearer"


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
    """What the partition of a route is of."""
    return plan_of(app_of(page_of(1), **fields)).partition_of


def test_the_partition_is_named_by_its_dependency() -> None:
    """Tenant 7 is not user 7; the same dependency, however it is written, is the same."""
    assert of(partition_by=user_id) != of(partition_by=tenant_id)
    assert of(partition_by=user_id) == of(partition_by=Depends(user_id)) == of(partition_by=(user_id,))
    assert of() == of(guarded_by=user_id) == ()


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
        return plan_of(app).partition_of

    assert under("read") != under("write")
