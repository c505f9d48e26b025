"""PostgreSQL's triggers render a value as a session does that reads it, whatever the session that writes is set to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import MetaData, create_engine, delete, insert, select, text, update
from sqlalchemy.dialects.postgresql import DOMAIN, INET
from sqlalchemy.types import REAL, Numeric

from fastapi_cacheinval import TagTemplate
from fastapi_cacheinval.contrib.outbox import Outbox
from fastapi_cacheinval.core.tag_limits import bounded_tags
from tests.helpers.rendered import CASES, ZONED, Case, table_of
from tests.system.postgresql import PostgreSQL, postgresql

TEMPLATE = TagTemplate.parse("v:{value}")
EVERY = {
    **CASES,
    **ZONED,
    "address": Case(INET(), "10.0.0.1", str, None, None, "v:10.0.0.1"),
    "domain": Case(DOMAIN("price", Numeric(10, 2)), CASES["price"].value, str, None, None, "v:30.5"),
    "short float": Case(REAL(), 0.25, str, None, None, "v:0.25"),
}
SETTINGS = """SET datestyle = 'German'; SET timezone = 'Asia/Kolkata'; SET intervalstyle = 'iso_8601';
    SET extra_float_digits = -5; SET bytea_output = 'escape'; SET standard_conforming_strings = off"""


@pytest.fixture(scope="module")
def database() -> Iterator[PostgreSQL]:
    """One cluster for all tests here."""
    with postgresql() as server:
        yield server


@pytest.mark.parametrize("how", ["table", "name"])
@pytest.mark.parametrize("name", EVERY)
def test_a_trigger_renders_as_a_session_does(database: PostgreSQL, name: str, how: str) -> None:
    """Insert, update and delete, by the table with its types and by its name alone; an enum needs its type."""
    case = EVERY[name]
    by_name = how == "name" and "enum" not in name
    engine = create_engine(database.url(database.database(), "psycopg"))
    metadata = MetaData()
    table, box = table_of(case.kind, metadata), Outbox(metadata=metadata)
    metadata.create_all(engine)
    made = box.triggers("thing" if by_name else table, tags=[TEMPLATE.text], dialect="postgresql")
    expected: list[Any] = [] if case.text is None else [case.text]
    with engine.begin() as connection:
        for statement in (*made.create, *made.create):
            connection.execute(text(statement))
        read = connection.execute(insert(table).values(id=1, value=case.value).returning(table.c.value)).scalar_one()
        assert [tag for tag in [TEMPLATE.render({"value": read})] if tag is not None] == expected
        for statement in SETTINGS.split(";"):
            connection.execute(text(statement))
        connection.execute(update(table).values(id=2))
        connection.execute(delete(table))
        rows = connection.execute(select(box.table.c.tags)).scalars().all()
        for row in rows:
            assert list(bounded_tags(tag for tag in json.loads(row) if tag is not None)) == expected
        assert len(rows) == 3
        for statement in (*made.drop, *made.drop):
            connection.execute(text(statement))
        functions = "SELECT count(*) FROM pg_proc WHERE proname LIKE 'cacheinval%'"
        assert connection.execute(text(functions)).scalar_one() == 0
    engine.dispose()
