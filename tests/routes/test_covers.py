"""What a cover covers: its own node, by callable and security scopes, and nothing else."""

# No postponed annotations: the handlers name classes and callables of their own test.

from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, Header, Request, Response, Security
from fastapi.security import OAuth2PasswordBearer, SecurityScopes

from fastapi_cacheinval import CachePolicy, CallerDependentRoute, ConfigurationError, PartitionBy, cached
from fastapi_cacheinval.routes.plan import Sharing

oauth2 = OAuth2PasswordBearer(tokenUrl="token")


def current_user(token: Annotated[str, Depends(oauth2)]) -> str:
    return token


def tenant(user: Annotated[str, Depends(current_user)]) -> str:
    return user[:3]


def require_admin(user: Annotated[str, Depends(current_user)]) -> str:
    return user


def scoped(scopes: SecurityScopes, token: Annotated[str, Depends(oauth2)]) -> str:
    return token


def hidden_scopes(user: Annotated[str, Depends(scoped)]) -> str:
    return user


def other(authorization: Annotated[str, Header()]) -> str:
    return authorization


def handler() -> str:
    return ""


def app_with(endpoint: Any, *dependencies: Any) -> FastAPI:
    app = FastAPI()
    app.get("/it", dependencies=list(dependencies))(endpoint)
    return app


def test_a_partition_covers_its_node_wherever_the_value_is_used(plan) -> None:
    """The handler, a route's list and a dependency may all be handed the value that is in the key."""

    def service(of: Annotated[str, Depends(tenant)]) -> str:
        return of

    def endpoint(of: Annotated[str, Depends(tenant)], it: Annotated[str, Depends(service)]) -> str:
        return of

    found = plan(app_with(endpoint, Depends(tenant), cached(ttl=60, partition_by=tenant, guarded_by=service)))
    assert found.sharing is Sharing.COVERED
    assert not found.front


def test_what_a_partition_feeds_may_refuse_and_has_to_run(plan) -> None:
    """Made of nothing but the partition's value, a service is no less a check that a hit would skip."""

    def service(of: Annotated[str, Depends(tenant)]) -> str:
        return of

    def endpoint(it: Annotated[str, Depends(service)]) -> str:
        return it

    found = plan(app_with(endpoint, cached(ttl=60, partition_by=tenant)))
    assert found.sharing is Sharing.UNPROVED
    assert found.uncovered == (
        "dependency service: depends on OAuth2PasswordBearer (security scheme OAuth2PasswordBearer)",
    )


def test_a_partition_says_nothing_of_its_own_sub_dependencies(table) -> None:
    """With partition_by=tenant and current_user in the handler, alice's page would go to bob."""

    def endpoint(user: Annotated[str, Depends(current_user)]) -> str:
        return user

    with pytest.raises(CallerDependentRoute, match="OAuth2PasswordBearer"):
        table(app_with(endpoint, cached(ttl=60, partition_by=tenant))).audit()


def test_a_sibling_is_not_covered(table) -> None:
    """A guard beside the partition would be skipped on a hit."""
    with pytest.raises(CallerDependentRoute):
        table(app_with(handler, cached(ttl=60, partition_by=tenant), Depends(require_admin))).audit()


def test_an_earlier_dependency_is_not_covered(table) -> None:
    """That it is declared before cached() is no proof that it has run or passed."""
    with pytest.raises(CallerDependentRoute):
        table(app_with(handler, Depends(require_admin), cached(ttl=60, partition_by=tenant))).audit()


def test_a_guard_covers_its_node_where_the_value_goes_nowhere(plan) -> None:
    """The same guard on the router above is covered by the lookup's own run of it."""
    app = FastAPI(dependencies=[Depends(require_admin)])
    router = APIRouter(dependencies=[Depends(require_admin)])
    router.get("/it", dependencies=[cached(ttl=60, guarded_by=require_admin)])(handler)
    app.include_router(router)
    found = plan(app)
    assert found.sharing is Sharing.COVERED
    assert not found.front


def test_a_guards_value_may_not_reach_the_handler(table) -> None:
    """It is in no key: one admin's page would go to the next."""

    def endpoint(user: Annotated[str, Depends(require_admin)]) -> str:
        return user

    with pytest.raises(CallerDependentRoute):
        table(app_with(endpoint, cached(ttl=60, guarded_by=require_admin))).audit()


def test_a_guards_value_may_not_reach_a_dependency(table) -> None:
    """A value bound to a dependency's parameter is used too."""

    def service(user: Annotated[str, Depends(require_admin)]) -> str:
        return user

    def endpoint(it: Annotated[str, Depends(service)]) -> str:
        return it

    with pytest.raises(CallerDependentRoute):
        table(app_with(endpoint, cached(ttl=60, guarded_by=require_admin))).audit()


@pytest.mark.parametrize("guard", [scoped, hidden_scopes])
def test_the_same_callable_with_more_scopes_is_another_node(table, guard) -> None:
    """The scopes count where the node or anything below it uses them."""
    app = app_with(
        handler, cached(ttl=60, guarded_by=Security(guard, scopes=["read"])), Security(guard, scopes=["read", "admin"])
    )
    with pytest.raises(CallerDependentRoute):
        table(app).audit()


def test_the_same_scopes_in_another_order_are_the_same_node(plan) -> None:
    """They are a set, as they are for FastAPI."""
    app = app_with(
        handler, cached(ttl=60, guarded_by=Security(scoped, scopes=["a", "b"])), Security(scoped, scopes=["b", "a"])
    )
    assert plan(app).sharing is Sharing.COVERED


def test_scopes_inherited_from_above_count(table) -> None:
    """The handler's node stands under a Security() with scopes that the cover does not stand under."""

    def outer(of: Annotated[str, Depends(scoped)]) -> None:
        pass

    app = app_with(handler, cached(ttl=60, partition_by=scoped), Security(outer, scopes=["admin"]))
    with pytest.raises(CallerDependentRoute):
        table(app).audit()


def test_scopes_that_nothing_uses_do_not_count(plan) -> None:
    """FastAPI solves such nodes once, so they are one node."""

    def read_header(authorization: Annotated[str, Header()]) -> str:
        return authorization

    def outer(of: Annotated[str, Depends(read_header)]) -> str:
        return of

    def endpoint(of: Annotated[str, Security(outer, scopes=["admin"])]) -> str:
        return of

    guard = Security(outer, scopes=["admin"])
    app = app_with(endpoint, cached(ttl=60, partition_by=read_header, guarded_by=guard))
    assert plan(app).sharing is Sharing.COVERED


def test_a_node_solved_anew_each_time_is_not_covered(table) -> None:
    """With use_cache=False the handler may be handed another value than the key holds."""

    def endpoint(of: Annotated[str, Depends(other, use_cache=False)]) -> str:
        return of

    with pytest.raises(CallerDependentRoute):
        table(app_with(endpoint, cached(ttl=60, partition_by=other))).audit()


def test_a_cover_solved_anew_each_time_covers_only_itself(table, plan) -> None:
    """Its value is not the one that the handler is handed."""

    def endpoint(of: Annotated[str, Depends(other)]) -> str:
        return of

    policy = cached(ttl=60, partition_by=Depends(other, use_cache=False))
    with pytest.raises(CallerDependentRoute):
        table(app_with(endpoint, policy)).audit()
    assert plan(app_with(handler, policy)).sharing is Sharing.COVERED


def test_several_covers_cover_each_its_own(plan, table) -> None:
    """A tuple of partitions and guards, plain or marked, covers the sum of them."""

    def endpoint(of: Annotated[str, Depends(tenant)], also: Annotated[str, Depends(other)]) -> str:
        return of

    covers = cached(ttl=60, partition_by=(tenant, Depends(other)), guarded_by=require_admin)
    assert plan(app_with(endpoint, covers, Depends(require_admin))).sharing is Sharing.COVERED
    with pytest.raises(CallerDependentRoute):
        table(app_with(endpoint, cached(ttl=60, partition_by=(tenant,)))).audit()


def test_an_outer_cached_is_inert_and_its_guard_an_ordinary_dependency(table) -> None:
    """Its covers do not cover for the inner one, and are themselves uncovered."""
    app = FastAPI(dependencies=[cached(ttl=60, guarded_by=require_admin)])
    app.get("/it", dependencies=[cached(ttl=5)])(handler)
    with pytest.raises(CallerDependentRoute):
        table(app).audit()


def test_the_innermost_cached_wins(plan) -> None:
    """App, include, router, route, parameter: each gives way to the next."""
    policies = [cached(ttl=ttl) for ttl in (1, 2, 3, 4, 5)]

    def build(count: int) -> FastAPI:
        at = [[policy] if index < count else [] for index, policy in enumerate(policies)]
        app = FastAPI(dependencies=at[0])
        router = APIRouter(dependencies=at[2])

        def plain() -> str:
            return ""

        def parameter(it: Any = policies[4]) -> str:
            return ""

        router.get("/it", dependencies=at[3])(parameter if count == 5 else plain)
        app.include_router(router, dependencies=at[1])
        return app

    for count in range(1, 6):
        found = plan(build(count))
        assert found.policy.ttl == count
        assert found.cached is policies[count - 1].dependency


def test_a_cached_below_a_dependency_counts_in_the_order_of_running(plan) -> None:
    """A parameter's dependency runs after the route's list, and what it depends on just before it."""
    below, beside = cached(ttl=1), cached(ttl=2)

    def outer(it: Any = below) -> None:
        pass

    def endpoint(it: Annotated[None, Depends(outer)]) -> str:
        return ""

    assert plan(app_with(endpoint, beside)).cached is below.dependency
    assert plan(app_with(handler, Depends(outer), beside)).cached is beside.dependency


def test_a_policy_switched_off_is_none(plan) -> None:
    """ttl=0 switches an inherited policy off, and then anything may be read."""
    app = FastAPI(dependencies=[cached(ttl=60)])

    @app.get("/it", dependencies=[cached(ttl=0)])
    def endpoint(request: Request) -> str:
        return ""

    found = plan(app)
    assert found.policy is None
    assert found.cached is None
    assert not found.front


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"])
def test_a_policy_is_inert_where_get_is_not_answered(plan, table, method) -> None:
    """An inherited or own cached() on such a route neither caches nor complains."""
    app = FastAPI()
    app.api_route("/it", methods=[method], dependencies=[cached(ttl=60), Depends(require_admin)])(handler)
    table(app).audit()
    assert plan(app).policy is None


def test_a_cached_in_two_places_covers_only_what_both_run(table) -> None:
    """The same cached() under other inherited scopes runs another guard, so neither can be counted on."""
    policy = cached(ttl=60, guarded_by=scoped)

    def outer(it: Any = policy) -> None:
        pass

    app = app_with(handler, Depends(scoped), policy, Security(outer, scopes=["admin"]))
    with pytest.raises(CallerDependentRoute):
        table(app).audit()
    table(app_with(handler, Depends(scoped), policy)).audit()


@pytest.mark.parametrize("cover", ["partition_by", "guarded_by"])
def test_a_cover_that_sets_fields_of_the_response_does_not_cover_them(plan, cover: str) -> None:
    """What a cover, or anything below it, writes into the response would be stored and handed to others."""

    def greeted(response: Response, user: Annotated[str, Depends(current_user)]) -> str:
        response.headers["X-User"] = user
        return user

    def above(user: Annotated[str, Depends(greeted)]) -> str:
        return user[:3]

    for dependency in (greeted, above):
        options: Any = {cover: dependency}
        found = plan(app_with(handler, cached(ttl=60, **options)))
        assert found.sharing is Sharing.UNPROVED
        assert "greeted: sets fields of the response" in found.uncovered[0]


@pytest.mark.parametrize("field", ["partition_by", "guarded_by"])
def test_an_annotated_alias_stands_for_its_dependency(field: str) -> None:
    """`Annotated[User, Depends(f)]` is a cover like `Depends(f)`; an alias without any is refused when made."""

    def tenant() -> str:
        return ""

    marked = Depends(tenant)
    policy = CachePolicy(60, **{field: Annotated[str, marked]})  # type: ignore[arg-type]
    assert (policy.partition or policy.guards) == (marked,)
    with pytest.raises(ConfigurationError, match="names no dependency"):
        CachePolicy(60, **{field: Annotated[str, "no dependency"]})  # type: ignore[arg-type]
    assert PartitionBy(Annotated[str, marked], key=str).dependency is marked
    with pytest.raises(ConfigurationError, match="'\\*' is none"):
        CachePolicy(60, vary=["*"])
