"""What routes declare, what the cache tells and what it raises can be copied and pickled."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI
from fastapi.routing import APIRoute
from fastapi.security import APIKeyHeader

from fastapi_cacheinval import (
    CacheMiddleware,
    CacheNotRunning,
    CachePolicy,
    CallerDependentRoute,
    ConfigurationError,
    HeaderOptions,
    HeaderRule,
    HTTPCache,
    MiddlewareMissing,
    PartitionBy,
    PurgeNotDelivered,
    RefusedRoute,
    RefusedRoutes,
    ReplicasUnknown,
    TagTemplate,
    UnknownRoute,
    audit_app,
    cached,
    invalidates,
    invalidates_nothing,
)
from fastapi_cacheinval.core.keys import PartitionTypeError
from fastapi_cacheinval.core.unchanging import FrozenMapping
from fastapi_cacheinval.errors import LogUnavailable, SettingIsFixed, TierUnavailable
from tests.helpers.http import ask


def repeated(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))


WAYS = pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, repeated])
SCHEME = APIKeyHeader(name="x-key")
REFUSED = RefusedRoute("/a", "cause", "cure", trails=("a → b",))
CALLER = CallerDependentRoute("/a", ("the handler: x",), "advice", ("a → b",))


def page() -> FastAPI:
    app = FastAPI()
    app.add_api_route("/", lambda: "page", dependencies=[cached(ttl=60)])
    app.add_middleware(CacheMiddleware, cache=HTTPCache())
    return app


@WAYS
@pytest.mark.parametrize(
    "value",
    [
        CachePolicy(ttl=60),
        CachePolicy(ttl=60, statuses={200: 1, 404: 2}, tags=["a:{b}"], partition_by=PartitionBy(len, key=str)),
        cached(ttl=60),
        cached(ttl=60, guarded_by=json.dumps).dependency,
        invalidates("a", soft=True),
        invalidates_nothing(),
        HeaderOptions(rules=[("/*", 60), ("/a", HeaderRule(0, override=True))]),
        TagTemplate.parse("a:{b}"),
        HTTPCache().statistics(),
        audit_app(page()),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_declared_and_told_can_be_copied(value: Any, again: Callable[[Any], Any]) -> None:
    """A copy says the same, by every way in which libraries make one."""
    assert repr(again(value)) == repr(value)


@WAYS
@pytest.mark.parametrize(
    "error",
    [
        ConfigurationError("a"),
        UnknownRoute("a", "why", ("b",)),
        SettingIsFixed("a"),
        REFUSED,
        CALLER,
        RefusedRoutes.of([REFUSED, CALLER]),
        RefusedRoutes.of([CALLER, REFUSED]),
        MiddlewareMissing("/a"),
        CacheNotRunning("a"),
        PurgeNotDelivered(("a", "b"), "down", queued=False),
        LogUnavailable("down"),
        TierUnavailable("down"),
        ReplicasUnknown(1, 2, "down"),
        PartitionTypeError([]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_come_through_a_task_queue(error: Exception, again: Callable[[Any], Any]) -> None:
    """With their class, their message and their evidence."""
    found = again(error)
    assert (type(found), str(found)) == (type(error), str(error))
    assert {name: str(value) for name, value in vars(found).items()} == {
        name: str(value) for name, value in vars(error).items()
    }


def test_statistics_and_policies_can_be_written_as_json() -> None:
    """`asdict` copies what is in them."""
    json.dumps(asdict(HTTPCache().statistics()))
    assert asdict(CachePolicy(ttl=60, statuses={200: 1}))["statuses"] == {200: 1}


@pytest.mark.parametrize(
    "write",
    [
        lambda table: table.__setitem__("b", 1),
        lambda table: table.__delitem__("a"),
        lambda table: table.__ior__({"b": 1}),
        lambda table: table.update(b=1),
        lambda table: table.setdefault("b", 1),
        lambda table: table.pop("a"),
        lambda table: table.popitem(),
        lambda table: table.clear(),
    ],
)
def test_a_frozen_mapping_cannot_be_changed(write: Callable[[Any], Any]) -> None:
    """Nor can its copies."""
    table = FrozenMapping({"a": 1})
    for each in (table, copy.deepcopy(table), repeated(table)):
        with pytest.raises(TypeError, match="cannot be changed"):
            write(each)
        assert each == {"a": 1}


@pytest.mark.anyio
async def test_a_router_that_is_made_of_copied_routes_is_cached_as_the_first_one() -> None:
    """As libraries make one per version: its covers run, and its pages are hits of their callers."""
    router = APIRouter()

    @router.get("/", dependencies=[cached(ttl=60, partition_by=SCHEME)])
    async def read(key: Annotated[str, Depends(SCHEME)]) -> str:
        return key

    app = FastAPI()
    for version in ("/v1", "/v2"):
        for route in router.routes:
            assert isinstance(route, APIRoute)
            twin = copy.deepcopy(route)
            app.router.add_api_route(version, twin.endpoint, dependencies=twin.dependencies, methods=["GET"])
    outer = CacheMiddleware(app, cache=HTTPCache())
    for version in ("/v1", "/v2"):
        for key in ("one", "two"):
            for hit in (False, True):
                answer = await ask(outer, version, headers={"x-key": key})
                assert (answer.body, answer.cache and answer.cache.hit) == (b'"%b"' % key.encode(), hit)
        assert (await ask(outer, version)).status_code in (401, 403)
