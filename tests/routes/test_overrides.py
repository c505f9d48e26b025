"""While dependencies are overridden, the overridden tree is what counts."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, Header, Request, Security
from fastapi.security import SecurityScopes

from fastapi_cacheinval import cached
from fastapi_cacheinval.routes.plan import Sharing


def user() -> str:
    return "anonymous"


def from_header(authorization: Annotated[str, Header()] = "") -> str:
    return authorization


def from_query(name: str = "") -> str:
    return name


def page(number: int = 1) -> int:
    return number


def tenant(authorization: Annotated[str, Header()] = "") -> str:
    return authorization


@pytest.fixture
def app(probe) -> FastAPI:
    """One cached route that depends on the user, probed by its first dependency."""
    made = FastAPI()

    @made.get("/it", dependencies=[probe, cached(ttl=60, guarded_by=tenant)])
    def handler(name: Annotated[str, Depends(user)]) -> str:
        return name

    # The probe takes the request, as any dependency that does it is caller-dependent; it is not the matter here.
    return made


@pytest.fixture
def evidence(table, ask):
    """What the plan at request time has against sharing, but for the probe."""

    def of(made: Any, app: FastAPI) -> list[str]:
        plan = made.plan_for(ask(app, "/it"))
        return [each for each in plan.uncovered if "keep" not in each]

    return of


def test_an_override_that_reads_the_caller_is_unproved_not_an_error(table, app, evidence, ask) -> None:
    """The original read nothing, the override reads a header."""
    made = table(app)
    assert evidence(made, app) == []
    app.dependency_overrides[user] = from_header
    assert evidence(made, app) == ["dependency from_header: Header() 'authorization'"]
    plan = made.plan_for(ask(app, "/it"))
    assert plan.sharing is Sharing.UNPROVED
    assert plan.epoch > 0
    assert not plan.front
    app.dependency_overrides.clear()
    assert evidence(made, app) == []
    assert made.plan_for(ask(app, "/it")).epoch == 0


def test_an_override_may_read_less(table, app, evidence) -> None:
    """What the original read is not run, and is no evidence."""
    app.dependency_overrides[user] = from_header
    made = table(app)
    assert evidence(made, app)
    app.dependency_overrides[user] = lambda: "alice"
    assert evidence(made, app) == []


def test_an_overrides_query_parameters_are_kept(table, ask) -> None:
    """They become part of the key."""
    made_app = FastAPI()
    scopes: list[Any] = []

    @made_app.get("/it", dependencies=[cached(ttl=60)])
    def handler(name: Annotated[str, Depends(user)]) -> str:
        return name

    made = table(made_app)
    scopes.append({"type": "http", "route": made_app.routes[-1]})
    assert made.plan_for(scopes[0]).query == frozenset()
    made_app.dependency_overrides[user] = from_query
    assert made.plan_for(scopes[0]).query == {"name"}
    assert made.match("GET", "/it", {"type": "http"}) is made.plan_for(scopes[0])


def test_each_set_of_overrides_has_its_own_number(table, app, ask) -> None:
    """Equal sets share it; a set that comes again after many others gets a fresh one; none is used twice."""
    made = table(app)
    seen: list[int] = []

    def epoch() -> int:
        return made.plan_for(ask(app, "/it")).epoch

    first = {user: from_query}
    app.dependency_overrides = dict(first)
    seen.append(epoch())
    app.dependency_overrides = dict(first)
    assert epoch() == seen[0]
    for _ in range(20):
        app.dependency_overrides = {user: lambda: "x"}
        seen.append(epoch())
    app.dependency_overrides = dict(first)
    seen.append(epoch())
    assert len(set(seen)) == len(seen)
    assert 0 not in seen
    # A table made anew, as after a restart on another loop, does not begin again.
    again = table(app)
    assert again.plan_for(ask(app, "/it")).epoch not in seen


def test_a_cover_is_named_by_the_original_callable(table, probe, ask) -> None:
    """Overriding the partition everywhere leaves it the same node, in the key and in the handler."""
    app = FastAPI()

    @app.get("/it", dependencies=[cached(ttl=60, partition_by=tenant)])
    def handler(of: Annotated[str, Depends(tenant)]) -> str:
        return of

    app.dependency_overrides[tenant] = from_header
    made = table(app)
    assert made.plan_for({"type": "http", "route": app.routes[-1]}).sharing is Sharing.COVERED


def test_two_originals_with_one_override_are_two_nodes(table) -> None:
    """FastAPI solves them apart, so the cover of one does not cover the other."""
    app = FastAPI()

    @app.get("/it", dependencies=[cached(ttl=60, partition_by=tenant)])
    def handler(name: Annotated[str, Depends(user)]) -> str:
        return name

    app.dependency_overrides = {tenant: from_header, user: from_header}
    plan = table(app).plan_for({"type": "http", "route": app.routes[-1]})
    assert plan.sharing is Sharing.UNPROVED


def test_an_override_of_a_sub_dependency_of_an_override_counts(table) -> None:
    """FastAPI overrides at every depth."""

    def outer(name: Annotated[str, Depends(from_query)]) -> str:
        return name

    app = FastAPI()

    @app.get("/it", dependencies=[cached(ttl=60)])
    def handler(name: Annotated[str, Depends(user)]) -> str:
        return name

    app.dependency_overrides = {user: outer, from_query: from_header}
    plan = table(app).plan_for({"type": "http", "route": app.routes[-1]})
    assert plan.uncovered == ("dependency outer: depends on from_header (Header() 'authorization')",)


def scoped(scopes: SecurityScopes, authorization: Annotated[str, Header()] = "") -> str:
    return authorization


def test_an_overridden_nodes_scopes_still_count(table) -> None:
    """The same callable with more scopes is another node, overridden or not."""

    def overriding(scopes: SecurityScopes, authorization: Annotated[str, Header()] = "") -> str:
        return authorization

    def build(*more: str) -> FastAPI:
        app = FastAPI()
        guards = [cached(ttl=60, guarded_by=Security(scoped, scopes=["a"])), Security(scoped, scopes=["a", *more])]
        app.get("/it", dependencies=guards)(lambda: "")
        app.dependency_overrides[scoped] = overriding
        return app

    for app, sharing in ((build(), Sharing.COVERED), (build("b"), Sharing.UNPROVED)):
        assert table(app).plan_for({"type": "http", "route": app.routes[-1]}).sharing is sharing


def test_each_app_has_its_own_overrides(table, probe, ask) -> None:
    """A mounted app's routes ask the mounted app, an included router's the app."""
    inner, app, router = FastAPI(), FastAPI(), APIRouter()
    inner.get("/it", dependencies=[probe])(lambda: "")
    router.get("/it", dependencies=[probe])(lambda: "")
    app.include_router(router)
    app.mount("/sub", inner)
    made = table(app)
    app.dependency_overrides[user] = from_header
    assert made.plan_for(ask(app, "/it")).epoch > 0
    assert made.plan_for(ask(app, "/sub/it")).epoch == 0


def test_a_name_that_an_override_no_longer_declares_keeps_its_binding(table) -> None:
    """The tag is still made from the request, as the original would have validated it, and the key holds it."""
    app = FastAPI()

    @app.get("/it", dependencies=[cached(ttl=60, tags=["page:{number}"])])
    def handler(at: Annotated[int, Depends(page)]) -> int:
        return at

    app.dependency_overrides[page] = user
    plan = table(app).plan_for({"type": "http", "route": app.routes[-1]})
    request = Request({"type": "http", "path_params": {}, "query_string": b"number=007", "headers": []})
    assert plan.bindings["number"].value(request) == 7
    assert plan.query == {"number"}
