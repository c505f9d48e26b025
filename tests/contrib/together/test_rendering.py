"""One value is one tag: from a route, from a session, from Kafka, from SQS, from the outbox, and from a trigger."""

from __future__ import annotations

import enum
import json
import math
import sqlite3
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Column, Integer, MetaData, create_engine, delete, insert, select, text, update
from sqlalchemy.orm import DeclarativeBase, sessionmaker

from fastapi_cacheinval import CacheMiddleware, CacheTags, HTTPCache, TagTemplate, cached
from fastapi_cacheinval.contrib.kafka import Record, debezium
from fastapi_cacheinval.contrib.kafka.record import read as read_record
from fastapi_cacheinval.contrib.outbox import Outbox
from fastapi_cacheinval.contrib.outbox.reading import read as read_row
from fastapi_cacheinval.contrib.sqlalchemy import collect_changes
from fastapi_cacheinval.contrib.sqlalchemy.rules import Rules
from fastapi_cacheinval.contrib.sqs import Message
from fastapi_cacheinval.contrib.sqs.reading import read as read_message
from fastapi_cacheinval.core.tag_limits import bounded_tags
from fastapi_cacheinval.sources import Change
from fastapi_cacheinval.testing import assert_hit, assert_miss, capture_invalidations
from tests.helpers.http import ask
from tests.helpers.rendered import CASES, ZONED, Case, table_of

pytestmark = pytest.mark.anyio

TEMPLATE = "v:{value}"


def tags_of(change: object) -> list[str]:
    """What is purged in the end."""
    assert isinstance(change, Change)
    return list(bounded_tags(change.tags))


def expected(case: Case) -> list[str]:
    return [] if case.text is None else [case.text]


every = pytest.mark.parametrize("case", [*CASES.values(), *ZONED.values()], ids=[*CASES, *ZONED])
told = pytest.mark.parametrize(
    "case", [pytest.param(case, id=name) for name, case in {**CASES, **ZONED}.items() if case.debezium]
)
stored = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


@every
async def test_from_a_route(case: Case) -> None:
    """A client's spelling is validated, and the value renders."""

    async def handler(value: Any = None) -> str:
        return "x"

    handler.__annotations__["value"] = case.annotation
    app = FastAPI()
    app.get("/", dependencies=[cached(ttl=60, tags=[TEMPLATE])])(handler)
    app.add_middleware(CacheMiddleware, cache=HTTPCache())
    query = "" if case.query is None else urlencode({"value": case.query})
    answer = await ask(app, f"/?{query}")
    assert answer.status_code == 200, answer
    assert [tag for tag in answer.headers.get("surrogate-key", "").split() if tag.startswith("v:")] == expected(case)


@pytest.mark.parametrize("outbox", [False, True], ids=["straight", "by an outbox"])
@stored
def test_from_a_session(tmp_path: Path, case: Case, outbox: bool) -> None:
    """Written, and read again: the flush of a new row and the one of a row that changes; the outbox's row says the same."""

    class Base(DeclarativeBase):
        pass

    class Thing(Base):
        __tablename__ = "thing"
        id = Column(Integer, primary_key=True)
        other = Column(Integer)
        value = Column(case.kind)

    engine = create_engine(f"sqlite:///{tmp_path / 'things.db'}")
    box = Outbox(metadata=Base.metadata)
    Base.metadata.create_all(engine)
    cache, sessions = HTTPCache(), sessionmaker(engine)
    collect_changes(sessions, cache, {Thing: [TEMPLATE]}, outbox=box if outbox else None)
    for change in (lambda thing: None, lambda thing: setattr(thing, "other", 5)):
        with capture_invalidations(cache) as receipts, sessions.begin() as session:
            thing = session.merge(Thing(id=1, value=case.value))
            change(thing)
        assert [tag for receipt in receipts for tag in receipt.tags] == expected(case)
        with engine.begin() as connection:
            columns = [box.table.c[name] for name in ("id", "tags", "soft", "everything", "trace")]
            rows = connection.execute(select(*columns)).all()
            connection.execute(box.table.delete())
        assert [tags_of(read_row(row)) for row in rows] == ([expected(case)] if outbox and case.text else [])
    engine.dispose()


@pytest.mark.parametrize("envelope", [True, False], ids=["envelope", "flattened"])
@told
def test_from_debezium(case: Case, envelope: bool) -> None:
    """By the schema that comes with it: a decimal as bytes, a date as days, a moment as microseconds."""
    assert case.debezium is not None
    schema, value = case.debezium
    row = {"type": "struct", "fields": [{**schema, "field": "value"}]}
    told: dict[str, Any] = {"schema": row, "payload": {"value": value}}
    if envelope:
        fields = [{**row, "field": "before"}, {**row, "field": "after"}, {"field": "op", "type": "string"}]
        payload = {"before": None, "after": {"value": value}, "op": "c"}
        told = {"schema": {"type": "struct", "fields": fields}, "payload": payload}
    tags = debezium({"thing": [TEMPLATE]})
    record = Record("shop.public.thing", 0, 0, None, json.dumps(told).encode())
    # A decimal that a connector was told to write as text is no other text than this; MySQL's drivers read no time zone.
    also = ["v:30.5"] if case.value == "30.50" else []
    if isinstance(case.value, datetime) and case.value.tzinfo:
        also = [TagTemplate.parse(TEMPLATE).render({"value": case.value.replace(tzinfo=None)}) or ""]
    assert tags_of(read_record(record, tags, 10_000)) == [*expected(case), *bounded_tags(also)]


@pytest.mark.parametrize("name", ["nothing", "empty", "text", "whole", "true", "float", "whole float", "tiny float"])
def test_from_json(name: str) -> None:
    """What JSON has of its own needs no schema: in a message of SQS by a template, and in a record of Debezium.

    There it is among the readings of a value that may be more, and alone where the column is plain.
    """
    case = CASES[name]
    row = json.dumps({"value": case.value})
    record = Record("thing", 0, 0, None, row.encode())
    assert set(tags_of(read_record(record, debezium({"thing": [TEMPLATE]}), 10_000))) >= set(expected(case))
    plain = debezium({"thing": [TEMPLATE]}, plain=["thing.value"])
    assert tags_of(read_record(record, plain, 10_000)) == expected(case)
    template = TagTemplate.parse(TEMPLATE)
    message = Message.of({"MessageId": "1", "Body": row})
    change = read_message(message, lambda message: filter(None, [template.render(message.json())]), soft=False)
    assert tags_of(change) == expected(case)


@stored
def test_from_a_trigger_of_sqlite(tmp_path: Path, case: Case) -> None:
    """What SQLAlchemy has written, as the trigger reads it: on insert, on update and on delete."""
    engine = create_engine(f"sqlite:///{tmp_path / 'things.db'}")
    metadata = MetaData()
    table, box = table_of(case.kind, metadata), Outbox(metadata=metadata)
    metadata.create_all(engine)
    made = box.triggers(table, tags=[TEMPLATE], dialect="sqlite")
    with engine.begin() as connection:
        for statement in made.create:
            connection.execute(text(statement))
        for write in (insert(table).values(id=1, value=case.value), update(table).values(id=2), delete(table)):
            connection.execute(write)
            found = json.loads(connection.execute(select(box.table.c.tags)).scalar_one())
            assert list(bounded_tags(tag for tag in found if tag is not None)) == expected(case)
            connection.execute(box.table.delete())
    engine.dispose()


@given(st.decimals(-(10**9), 10**9, places=6).map(float) | st.integers(-(2**53), 2**53).map(float) | st.sampled_from(
    [1.5e-300, 123e40, -1e308, 1e15, 1e16, 9007199254740992.0, 1e-5, math.inf, -math.inf, -0.0]
))  # fmt: skip
def test_a_number_that_sqlite_keeps_needs_no_type(value: float) -> None:
    """By the name of the table alone, a `REAL` of up to 15 digits renders as the float does."""
    box = Outbox()
    made = box.triggers("thing", tags=[TEMPLATE], dialect="sqlite")
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE thing (value)")
    connection.execute("CREATE TABLE cacheinval_outbox (id INTEGER PRIMARY KEY, tags, soft)")
    connection.executescript(str(made))
    connection.execute("INSERT INTO thing VALUES (?)", (value,))
    tags = json.loads(connection.execute("SELECT tags FROM cacheinval_outbox").fetchone()[0])
    connection.close()
    assert tags == [TagTemplate.parse(TEMPLATE).render({"value": value})]


class Kind(str, enum.Enum):  # noqa: UP042  # its `str` is `Kind.BOOK`
    BOOK = "book"


async def test_a_tag_that_is_added_by_hand_is_the_one_that_is_purged_by_hand() -> None:
    """An enum of text is its value when it is added to a response, when it is purged, and when a model's function names it."""

    async def handler(tags: CacheTags) -> str:
        tags.add(Kind.BOOK)
        return "x"

    cache = HTTPCache()
    app = FastAPI()
    app.get("/", dependencies=[cached(ttl=60)])(handler)
    app.add_middleware(CacheMiddleware, cache=cache)
    assert (await ask(app)).headers["surrogate-key"] == "book"
    assert_hit(await ask(app))
    await cache.invalidate(Kind.BOOK)
    assert_miss(await ask(app))
    assert tags_of(Change.of([Kind.BOOK])) == ["book"]
    assert Rules(functions=(lambda thing: [Kind.BOOK],)).told(object()) == ["book"]
