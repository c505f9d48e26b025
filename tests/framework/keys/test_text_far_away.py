"""Text tells routes apart also where the handler holds it by way of other objects."""

from __future__ import annotations

import dataclasses
import pathlib
import re
import threading
import types
from collections.abc import Callable
from typing import Any

import httpx
import pydantic
import pytest
from fastapi import Depends, FastAPI
from sqlalchemy import Engine, create_engine
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import sessionmaker
from starlette.datastructures import URL

from fastapi_cacheinval import cached
from fastapi_cacheinval.routes.identity import plain_values
from fastapi_cacheinval.routes.middleware_stack import middleware_stack_of
from fastapi_cacheinval.routes.table import RouteTable


def identity_of(endpoint: Any) -> tuple[bytes, ...]:
    """What the route of a handler is in every process."""
    app = FastAPI(openapi_url=None)
    app.get("/it", dependencies=[cached(ttl=60)])(endpoint)
    [plan] = RouteTable(app, middleware_stack_of(app)).plans
    return plan.identity


def page_of(held: object) -> Any:
    def page() -> str:
        return str(held)

    return page


def depends_on(dependency: Any) -> Any:
    depends = Depends(dependency)

    def page(value: Any = depends) -> str:
        return str(value)

    return page


def with_attribute(held: object) -> Any:
    page = page_of(1)
    page.held = held
    return page


class Model(pydantic.BaseModel):
    name: str


class Settings:
    def __init__(self, name: str) -> None:
        self.name = name


class Nested(pydantic.BaseModel):
    tenant: Model


class Repository:
    def __init__(self, tenant: object) -> None:
        self.tenant = tenant


class Service:
    def __init__(self, repository: Repository) -> None:
        self.repository = repository


class Controller:
    """Its text is three objects away."""

    def __init__(self, service: Service) -> None:
        self.service = service

    async def page(self) -> str:
        return str(self.service.repository.tenant)


@dataclasses.dataclass(slots=True)
class SlottedLink:
    """It leads to another object by a slot."""

    to: object


def in_a_circle(name: str) -> Repository:
    made = Repository(None)
    made.tenant = Service(made)
    made.tenant.name = name  # type: ignore[attr-defined]
    return made


def engine_of(name: str) -> Engine:
    return create_engine(f"sqlite:///{name}.db")


class Site(pydantic.BaseModel):
    url: pydantic.HttpUrl
    database: pydantic.PostgresDsn = pydantic.PostgresDsn("postgresql://localhost/db")


# What leads to a text, by the text; each is held by a handler as it is, by an object, and three objects away.
FAR_AWAY: dict[str, Callable[[str], object]] = {
    "text": lambda name: name,
    "a model in a model": lambda name: Nested(tenant=Model(name=name)),
    "a namespace": lambda name: types.SimpleNamespace(name=name),
    "a path": lambda name: pathlib.Path("/data") / name,
    "a pattern": re.compile,
    "a slot": lambda name: SlottedLink(SlottedLink(Settings(name))),
    "a tuple of objects": lambda name: (Settings(name), Settings("both")),
    "a circle": in_a_circle,
    "a URL in a model": lambda name: Site(url=pydantic.HttpUrl(f"http://{name}/")),
    "a DSN in a model": lambda name: Site(
        url=pydantic.HttpUrl("http://both/"), database=pydantic.PostgresDsn(f"postgresql://{name}/db")
    ),
    "starlette's URL": lambda name: URL(f"http://{name}/"),
    "a client's address": lambda name: httpx.AsyncClient(base_url=f"http://{name}/"),
    "an engine": engine_of,
    "a sessionmaker": lambda name: sessionmaker(engine_of(name)),
    "a sessionmaker of asyncio": lambda name: async_sessionmaker(create_async_engine(f"sqlite+aiosqlite:///{name}.db")),
}
WAYS: dict[str, Callable[[object], Any]] = {
    "in a closure": page_of,
    "in an object": lambda held: page_of(Repository(held)),
    "three objects away": lambda held: Controller(Service(Repository(held))).page,
    "on the function": with_attribute,
    "of a dependency": lambda held: depends_on(Controller(Service(Repository(held))).page),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("make", FAR_AWAY.values(), ids=FAR_AWAY)
def test_text_tells_routes_apart_however_far_away_it_is(
    make: Callable[[str], object], way: Callable[[object], Any]
) -> None:
    """And what is made anew of the same text, as another replica makes it, is the same route."""
    one, again, two = (identity_of(way(make(name))) for name in ("acme", "acme", "bolt"))
    assert one == again
    assert one != two


def long_chain(length: int, end: object) -> object:
    for _ in range(length):
        end = Repository(end)
    return end


def wide(count: int) -> object:
    held = Repository(None)
    for number in range(count):
        setattr(held, f"_{number}", Repository(number))
    return held


@pytest.mark.parametrize("make", [lambda: long_chain(2_000, "acme"), lambda: wide(2_000)])
def test_what_leads_far_and_wide_is_described_by_what_is_near(make: Callable[[], object]) -> None:
    """The description is bounded, and the same each time."""
    one, two = (plain_values(page_of(make())) for _ in range(2))
    assert one == two
    assert sum(map(len, one)) < 20_000


def test_what_objects_far_away_hold_for_themselves_does_not_count() -> None:
    """Numbers, lists, mappings, and the state of a library's and of Python's objects may differ in each process."""
    for held in (1, [1], {"a": "b"}, threading.Lock(), httpx.AsyncClient(), threading.Thread(name="own")):
        other: Any = type(held)() if isinstance(held, int | list | dict) else held
        one, two = (identity_of(WAYS["three objects away"](each)) for each in (held, other))
        assert one == two
    engine = create_engine("sqlite://")
    before = identity_of(page_of(Repository(engine)))
    with engine.connect():
        assert identity_of(page_of(Repository(engine))) == before
    engine.dispose()
