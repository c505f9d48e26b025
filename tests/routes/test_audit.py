"""What may not start, what is only warned of, and what the plan of a mutation says."""

# No postponed annotations: the handlers name classes and callables of their own test.

from functools import partial
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, BackgroundTasks, Body, Depends, FastAPI, File, Form, Header
from pydantic import BaseModel, Field

from fastapi_cacheinval import CallerDependentRoute, ConfigurationError, cached, invalidates


def page() -> str:
    return "page"


def read(token: Annotated[str, Header()] = "") -> str:
    return token


class Payload(BaseModel):
    text: str = ""


BODIES = [
    Annotated[str, Body()],
    Payload,
    Annotated[str, Form()],
    Annotated[bytes, File()],
]


@pytest.mark.parametrize("annotation", BODIES, ids=["body", "model", "form", "file"])
@pytest.mark.parametrize("place", ["handler", "dependency"])
def test_a_declared_body_on_a_cached_get_is_refused(table, annotation, place) -> None:
    """It is no part of the key, in the handler or below it."""

    def takes(payload: annotation = None) -> str:  # type: ignore[valid-type]
        return ""

    app = FastAPI()
    handler = takes if place == "handler" else page
    extra = [Depends(takes)] if place == "dependency" else []
    app.get("/it", dependencies=[cached(ttl=60), *extra])(handler)
    with pytest.raises(ConfigurationError, match="'payload'"):
        table(app).audit()


def test_a_body_without_a_policy_is_nobodys_business(table) -> None:
    """Uncached and mutating routes take what they like, also under an inherited policy."""

    def takes(payload: Payload) -> str:
        return ""

    app = FastAPI(dependencies=[cached(ttl=60)])
    app.post("/it")(takes)
    app.get("/off", dependencies=[cached(ttl=0)])(takes)
    table(app).audit()


@pytest.mark.parametrize("name", ["range", "if_none_match", "if_modified_since", "if_match", "if_range"])
def test_a_conditional_or_range_header_on_a_cached_handler_is_refused(table, name) -> None:
    """The cache answers them itself, so the handler would never see one on a fill."""

    def handler(it: Annotated[str, Header(alias=name.replace("_", "-").title())] = "") -> str:
        return ""

    app = FastAPI()
    app.get("/it", dependencies=[cached(ttl=60)])(handler)
    with pytest.raises(ConfigurationError, match=name.replace("_", "-")):
        table(app).audit()


def test_the_same_in_a_header_model_is_refused(table) -> None:
    """Its fields are headers too."""

    class Fields(BaseModel):
        if_none_match: str = ""
        lang: str = Field("", alias="Range")

    def handler(fields: Annotated[Fields, Header()]) -> str:
        return ""

    app = FastAPI()
    app.get("/it", dependencies=[cached(ttl=60)])(handler)
    with pytest.raises(ConfigurationError, match="if-none-match"):
        table(app).audit()


@pytest.mark.parametrize("methods", [["GET"], ["GET", "HEAD"], ["OPTIONS"], ["TRACE"], ["QUERY"]])
@pytest.mark.parametrize("where", ["route", "parameter"])
def test_invalidates_on_a_route_of_safe_methods_is_refused(table, methods, where) -> None:
    """It would never purge anything."""
    marker = invalidates("things")

    def parameter(it: Any = marker) -> str:
        return ""

    app = FastAPI()
    dependencies = [marker] if where == "route" else []
    app.api_route("/it", methods=methods, dependencies=dependencies)(parameter if where == "parameter" else page)
    with pytest.raises(ConfigurationError, match="safe methods"):
        table(app).audit()


def _on_app(marker: Any) -> FastAPI:
    app = FastAPI(dependencies=[marker])
    app.get("/it")(page)
    return app


def _on_router(marker: Any) -> FastAPI:
    app, router = FastAPI(), APIRouter(dependencies=[marker])
    router.get("/it")(page)
    app.include_router(router)
    return app


def _on_include(marker: Any) -> FastAPI:
    app, router = FastAPI(), APIRouter()
    router.get("/it")(page)
    app.include_router(router, dependencies=[marker])
    return app


def _on_outer_router(marker: Any) -> FastAPI:
    app, outer, router = FastAPI(), APIRouter(dependencies=[marker]), APIRouter()
    router.get("/it")(page)
    outer.include_router(router)
    app.include_router(outer)
    return app


def _on_inner_include(marker: Any) -> FastAPI:
    app, outer, router = FastAPI(), APIRouter(), APIRouter()
    router.get("/it")(page)
    outer.include_router(router, dependencies=[marker])
    app.include_router(outer)
    return app


def _on_mounted_app(marker: Any) -> FastAPI:
    app = FastAPI()
    app.mount("/sub", _on_app(marker))
    return app


@pytest.mark.parametrize(
    "build", [_on_app, _on_router, _on_include, _on_outer_router, _on_inner_include, _on_mounted_app]
)
def test_inherited_it_is_inert(table, build) -> None:
    """From the app, a router or an include, at any depth."""
    made = table(build(invalidates("things")))
    made.audit()
    assert made.plans[-1].invalidations == ()


def test_it_unites_on_a_mutating_route(plan) -> None:
    """App, router, include, route and parameter all count, each once."""
    outer, inner, own, last = (invalidates(name) for name in ("a", "b", "c", "d"))

    def handler(it: Any = last) -> str:
        return ""

    app, router = FastAPI(dependencies=[outer]), APIRouter(dependencies=[inner, outer])
    router.put("/it", dependencies=[own])(handler)
    app.include_router(router)
    texts = [template.text for each in plan(app).invalidations for template in each.templates]
    assert sorted(texts) == ["a", "b", "c", "d"]


def test_a_route_of_safe_and_unsafe_methods_may_declare_both(plan, table) -> None:
    """The policy is for its GET, the invalidation for the rest."""
    app = FastAPI()
    app.api_route("/it", methods=["GET", "POST"], dependencies=[cached(ttl=60), invalidates("things")])(page)
    table(app).audit()
    found = plan(app)
    assert found.policy is not None
    assert len(found.invalidations) == 1


def test_the_first_error_in_matching_order_is_raised(table) -> None:
    """The author fixes one at a time."""
    app = FastAPI()
    app.get("/fine", dependencies=[cached(ttl=60)])(page)
    app.get("/first", dependencies=[cached(ttl=60), Depends(read)])(page)
    app.get("/second", dependencies=[invalidates("x")])(page)
    with pytest.raises(CallerDependentRoute) as caught:
        table(app).audit()
    assert caught.value.route == "/first"


def test_an_error_names_the_full_path(table) -> None:
    """With the prefixes of mounts and includes."""
    router, inner, app = APIRouter(), FastAPI(), FastAPI()
    router.get("/it", dependencies=[cached(ttl=60), Depends(read)])(page)
    inner.include_router(router, prefix="/inner")
    app.mount("/sub", inner)
    with pytest.raises(CallerDependentRoute, match="/sub/inner/it"):
        table(app).audit()


def session() -> Any:
    yield 1


async def async_session() -> Any:
    yield 1


class Session:
    def __call__(self) -> Any:
        yield 1


def below(it: Annotated[Any, Depends(session)]) -> Any:
    return it


@pytest.mark.parametrize(
    ("dependency", "late"),
    [
        (Depends(session), True),
        (Depends(async_session), True),
        (Depends(Session()), True),
        (Depends(partial(session)), True),
        (Depends(below), True),
        (Depends(session, scope="request"), True),
        (Depends(session, scope="function"), False),
        (Depends(page), False),
        (Depends(Session), False),
    ],
)
def test_a_request_scoped_yield_dependency_commits_late(plan, dependency, late) -> None:
    """It exits after the response is sent; a function-scoped one before."""
    app = FastAPI()
    app.post("/it", dependencies=[dependency])(page)
    assert plan(app).commits_late is late


def test_a_streaming_handler_commits_nothing_late(plan) -> None:
    """A generator as handler is a stream, not a yield dependency."""
    app = FastAPI()

    @app.post("/it")
    def handler() -> Any:
        yield "line"

    assert not plan(app).commits_late


@pytest.mark.parametrize(
    ("method", "tasks", "dependency", "warned"),
    [
        ("POST", True, Depends(session), True),
        ("GET", True, Depends(session), False),
        ("POST", False, Depends(session), False),
        ("POST", True, Depends(session, scope="function"), False),
        ("POST", True, Depends(page), False),
    ],
)
def test_background_tasks_before_a_late_commit_are_warned_of(table, method, tasks, dependency, warned) -> None:
    """On mutating routes, with the remedy."""

    def with_tasks(tasks: BackgroundTasks) -> str:
        return ""

    app = FastAPI()
    app.api_route("/it", methods=[method], dependencies=[dependency])(with_tasks if tasks else page)
    lines = table(app).warnings()
    assert len(lines) == int(warned)
    assert all("/it" in line and 'scope="function"' in line for line in lines)


def test_an_event_stream_under_a_policy_is_no_error(table) -> None:
    """It is just never stored."""
    from fastapi.sse import EventSourceResponse

    app = FastAPI()

    @app.get("/it", dependencies=[cached(ttl=60)], response_class=EventSourceResponse)
    async def handler() -> Any:
        yield {"a": 1}

    table(app).audit()


class Store:
    """Stands for a database session."""

    def __init__(self) -> None:
        self.info: dict[str, str] = {}


def store() -> Store:
    return Store()


def repository(db: Annotated[Store, Depends(store)]) -> Store:
    return db


def writes_the_user(db: Annotated[Store, Depends(store)], authorization: Annotated[str, Header()] = "") -> None:
    db.info["user"] = authorization


def checks_the_user(authorization: Annotated[str, Header()] = "") -> None:
    pass


def reads_store(db: Annotated[Store, Depends(store)]) -> str:
    return db.info["user"]


def reads_repository(db: Annotated[Store, Depends(repository)]) -> str:
    return db.info["user"]


def reads_anew(db: Annotated[Store, Depends(store, use_cache=False)]) -> str:
    return db.info["user"]


def notes(table: Any, endpoint: Any, *lists: Any, **policy: Any) -> list[str]:
    app = FastAPI(openapi_url=None)
    app.get("/it", dependencies=[cached(ttl=60, **policy), *lists])(endpoint)
    made = table(app)
    made.audit()
    found: list[str] = made.notes()
    return found


@pytest.mark.parametrize("endpoint", [reads_store, reads_repository])
@pytest.mark.parametrize("cover", ["guarded_by", "partition_by"])
def test_an_object_that_a_cover_and_the_handler_share_is_noted(table, endpoint, cover) -> None:
    """The cover may write into it who asks, and no signature says so: the note names both, and what to do."""
    (line,) = notes(table, endpoint, **{cover: writes_the_user})
    assert "writes_the_user and the handler are handed the same store" in line
    assert "/it" in line
    assert "partition_by" in line


def test_what_is_not_shared_is_not_noted(table) -> None:
    """A guard without the object, an object that is made anew, and a route that is the same for all by word."""
    assert notes(table, reads_store, guarded_by=checks_the_user) == []
    assert notes(table, reads_anew, guarded_by=writes_the_user) == []
    assert notes(table, reads_store, Depends(writes_the_user), shared=True) == []
    assert notes(table, page, guarded_by=writes_the_user) == []


def test_an_object_that_is_made_of_the_identity_is_the_pattern_that_is_right(table) -> None:
    """The identity is the partition, and the session that has it is a guard that the handler is handed: no note."""

    def tenant(authorization: Annotated[str, Header()] = "") -> str:
        return authorization

    def tenants_store(of: Annotated[str, Depends(tenant)]) -> Store:
        made = Store()
        made.info["user"] = of
        return made

    def endpoint(db: Annotated[Store, Depends(tenants_store)]) -> str:
        return db.info["user"]

    assert notes(table, endpoint, partition_by=tenant, guarded_by=tenants_store) == []
