"""What a cover, or the key of a partition, holds in containers tells releases apart as what it holds itself does."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import decimal
import enum
import fractions
import functools
import ipaddress
import math
import operator
import types
import zoneinfo
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import pydantic
import pytest
from fastapi import FastAPI, Header
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, configure_mappers, mapped_column
from starlette.datastructures import Headers, MutableHeaders

from fastapi_cacheinval import PartitionBy, cached
from fastapi_cacheinval.routes.middleware_stack import middleware_stack_of
from fastapi_cacheinval.routes.plan import RoutePlan
from fastapi_cacheinval.routes.table import RouteTable


class Team(enum.Enum):
    ID = "id"
    TEAM = "team"


class Holder:
    """A cover that is an object, as a class-based dependency is."""

    def __init__(self, held: Any) -> None:
        self.held = held

    def __call__(self, x_user: Annotated[str, Header()]) -> str:
        return f"{x_user}{self.held}"


class Slotted:
    __slots__ = ("held",)

    def __init__(self, held: Any) -> None:
        self.held = held


class Pair(NamedTuple):
    held: Any
    other: int = 1


class Shelf(dict[str, Any]):
    """A mapping of the author's own."""


@dataclasses.dataclass
class Data:
    held: Any


class Model(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)
    held: Any


def by_id(x_user: Annotated[str, Header()]) -> str:
    return x_user


def first(value: Any) -> Any:
    return value[0]


def second(value: Any) -> Any:
    return value[1]


def function_of(held: Any) -> Any:
    def key(value: str) -> str:
        return f"{value}{held}"

    return key


def cover_of(held: Any) -> Any:
    def cover(x_user: Annotated[str, Header()]) -> str:
        return f"{x_user}{held}"

    return cover


def bound(held: Any) -> Any:
    return types.MethodType(lambda held, value: f"{held}{value}", held)


# What stands where a release has another: of each kind, one and the other.
CONTENTS: dict[str, tuple[Any, Any]] = {
    "text": ("id", "team"),
    "number": (1, 2),
    "bytes": (b"id", b"team"),
    "bytearray": (bytearray(b"id"), bytearray(b"team")),
    "member": (Team.ID, Team.TEAM),
    "class": (int, str),
    "function": (first, second),
    "lambda": (lambda value: value.id, lambda value: value.team),
    "built-in function": (min, max),
    "built-in method": (str.lower, str.upper),
    "built-in method of another class": (str.strip, bytes.strip),
    "function of a module in C": (math.floor, math.ceil),
    "class method in C": (dict.fromkeys, dt.datetime.fromtimestamp),
    "getter": (operator.attrgetter("id"), operator.attrgetter("team")),
    "partial": (functools.partial(pow, 1), functools.partial(pow, 2)),
    "method": (bound("id"), bound("team")),
    "object": (Data("id"), Data("team")),
    "object of objects": (Data(Data("id")), Data(Data("team"))),
    "slots": (Slotted("id"), Slotted("team")),
    "model": (Model(held="id"), Model(held="team")),
    "held function": (Data(first), Data(second)),
    "held getter": (Slotted(operator.itemgetter(0)), Slotted(operator.itemgetter(1))),
    "decimal": (decimal.Decimal(1), decimal.Decimal(2)),
    "fraction": (fractions.Fraction(1, 2), fractions.Fraction(1, 3)),
    "time": (dt.timedelta(1), dt.timedelta(2)),
    "range": (range(1), range(2)),
    "network": (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("10.1.0.0/16")),
    "zone": (zoneinfo.ZoneInfo("Europe/Berlin"), zoneinfo.ZoneInfo("UTC")),
}

CONTAINERS: dict[str, Callable[[Any], Any]] = {
    "itself": lambda held: held,
    "tuple": lambda held: (held,),
    "tuple beside text": lambda held: ("text", held),
    "list": lambda held: [held],
    "long list": lambda held: [*range(200), held],
    "mapping": lambda held: {"a": held},
    "mapping of mappings": lambda held: {"a": {"b": [held]}},
    "ordered": lambda held: collections.OrderedDict(a=held),
    "default": lambda held: collections.defaultdict(str, a=held),
    "chain": lambda held: collections.ChainMap({"a": held}),
    "user's mapping": lambda held: collections.UserDict(a=held),
    "user's list": lambda held: collections.UserList([held]),
    "deque": lambda held: collections.deque([held]),
    "proxy": lambda held: types.MappingProxyType({"a": held}),
    "namespace": lambda held: types.SimpleNamespace(held=held),
    "named tuple": Pair,
    "own mapping": lambda held: Shelf(a=held),
    "data": Data,
    "data with a list": lambda held: Data([held]),
    "data with a mapping of data": lambda held: Data({"a": Data(held)}),
    "slots": Slotted,
}


def partial_of(held: Any) -> Any:
    return functools.partial(first, held)


# How a release comes to hold it.
WAYS: dict[str, Callable[[Any], Any]] = {
    "a key's closure": lambda held: PartitionBy(by_id, key=function_of(held)),
    "a key's partial": lambda held: PartitionBy(by_id, key=partial_of(held)),
    "a cover's closure": cover_of,
    "a cover's attribute": Holder,
}


def plan_for(cover: Any) -> RoutePlan:
    app = FastAPI(openapi_url=None)

    @app.get("/it", dependencies=[cached(ttl=60, partition_by=cover)])
    def page() -> str:
        return ""

    [plan] = RouteTable(app, middleware_stack_of(app)).plans
    return plan


# Each content in each container, and each of the ways in turn.
CASES = [
    (list(WAYS)[(row + column) % len(WAYS)], container, content)
    for row, container in enumerate(CONTAINERS)
    for column, content in enumerate(CONTENTS)
]


@pytest.mark.parametrize(("way", "container", "content"), CASES)
def test_what_a_container_holds_tells_releases_apart(way: str, container: str, content: str) -> None:
    """Another content is another name, the same is the same, and each is known in every process."""
    one, other = ([WAYS[way](CONTAINERS[container](each)) for _ in range(2)] for each in CONTENTS[content])
    plans = [plan_for(cover) for cover in (*one, *other)]
    assert plans[0].covered_by == plans[1].covered_by
    assert plans[2].covered_by == plans[3].covered_by
    assert plans[0].covered_by != plans[2].covered_by
    assert all(plan.known_everywhere for plan in plans)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("content", ["text", "number", "function", "getter", "class"])
def test_sets_have_no_order(way: str, content: str) -> None:
    """What a set holds counts, in whatever order a process has it."""
    one, other = CONTENTS[content]
    names = [plan_for(WAYS[way](kind([one, "x", "y"]))).covered_by for kind in (set, frozenset)]
    assert plan_for(WAYS[way]({"y", "x", one})).covered_by == names[0]
    assert plan_for(WAYS[way](frozenset(["y", one, "x"]))).covered_by == names[1]
    assert plan_for(WAYS[way]({other, "x", "y"})).covered_by not in names


def test_a_mapping_has_no_order_either() -> None:
    """Two processes may have filled it in another order."""
    assert (
        plan_for(Holder({"a": first, "b": second})).covered_by == plan_for(Holder({"b": second, "a": first})).covered_by
    )
    assert (
        plan_for(Holder({"a": first, "b": second})).covered_by != plan_for(Holder({"a": second, "b": first})).covered_by
    )


def test_containers_that_hold_themselves_or_very_much_are_no_trouble() -> None:
    """They are looked into once, and of a long one the number of members counts to its end."""
    ring: list[Any] = ["id"]
    ring.append(ring)
    other: list[Any] = ["team"]
    other.append(other)
    assert plan_for(Holder(ring)).covered_by != plan_for(Holder(other)).covered_by
    nested: list[Any] = []
    for _ in range(5_000):
        nested = [nested]
    assert plan_for(Holder(nested)).known_everywhere
    long, longer = [["a"] * 20_000 for _ in range(2)]
    longer.append("a")
    assert plan_for(Holder(long)).covered_by != plan_for(Holder(longer)).covered_by


def test_the_containers_of_a_library_do_not_count() -> None:
    """They are its state, such as what SQLAlchemy keeps on each mapped class, and differ between processes."""

    class Base(DeclarativeBase):
        pass

    class Row(Base):
        __tablename__ = "row"
        id: Mapped[int] = mapped_column(primary_key=True)

    def cover_by(x_user: Annotated[str, Header()]) -> Row:
        return Row(id=x_user)

    before = plan_for(PartitionBy(cover_by, key=function_of(Row))).covered_by
    configure_mappers()
    Row.later = "state"  # type: ignore[attr-defined]
    del Row.later  # type: ignore[attr-defined]
    session = Session()
    session.add(Row(id=1))
    assert plan_for(PartitionBy(cover_by, key=function_of(Row))).covered_by == before
    for kind in (Headers, MutableHeaders):
        assert plan_for(Holder([kind({"a": "1"})])).covered_by == plan_for(Holder([kind({"a": "2"})])).covered_by


def test_a_time_of_the_process_does_not_keep_replicas_from_sharing() -> None:
    """A cover's floats and dates are mostly such times; in a key's function they count."""
    for one, other in [(1.5, 2.5), (dt.date(2020, 1, 1), dt.date(2021, 1, 1))]:
        assert plan_for(Holder([one])).covered_by == plan_for(Holder([other])).covered_by
        keyed = [plan_for(PartitionBy(by_id, key=function_of([each]))).covered_by for each in (one, other)]
        assert keyed[0] != keyed[1]
