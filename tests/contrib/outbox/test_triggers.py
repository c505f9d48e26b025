"""Triggers for programs that know nothing of the outbox: SQLite in earnest, and what cannot work for both."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from fastapi_cacheinval import ConfigurationError
from fastapi_cacheinval.contrib.outbox import Outbox
from tests.helpers.fleet import eventually
from tests.helpers.outbox import PRODUCT, Shop, relaying, replica

pytestmark = pytest.mark.anyio

TAGS = ["product:{id}", "brand:{brand}", "products"]


def file_of(opened: Shop) -> Path:
    return Path(opened.url.partition(":///")[2])


def other_program(opened: Shop, script: str) -> None:
    """One that has no SQLAlchemy and no cache."""
    connection = sqlite3.connect(file_of(opened))
    try:
        connection.executescript(script)
        connection.commit()
    finally:
        connection.close()


async def written(opened: Shop) -> list[tuple[set[str], bool]]:
    """What has come since the last call."""
    rows = await opened.rows()
    async with opened.engine.begin() as connection:
        await connection.execute(opened.outbox.table.delete())
    return [({tag for tag in json.loads(row.tags) if tag is not None}, row.soft) for row in rows]


async def test_what_another_program_changes_is_on_the_replica(opened: Shop) -> None:
    """Plain SQL on the file: the relay finds the trigger's row, and the replica serves the new price."""
    other_program(opened, str(opened.outbox.triggers(PRODUCT, tags=TAGS, dialect="sqlite")))
    async with replica(opened) as reader, relaying(opened, poll=0.02):
        assert await reader.serves() == await reader.serves() == 0
        applied = reader.cache.statistics().applied
        await asyncio.to_thread(other_program, opened, "UPDATE product SET price = 42 WHERE id = 1")
        await eventually(lambda: reader.cache.statistics().applied > applied, "the purge on the replica")
        assert await reader.serves() == 42


async def test_each_operation_names_the_row_as_it_was_and_as_it_is(opened: Shop) -> None:
    """Insert, update and delete; a column that is NULL leaves its tag out."""
    other_program(opened, opened.outbox.triggers(PRODUCT, tags=TAGS, dialect="sqlite", soft=True).script)
    steps = {
        "INSERT INTO product VALUES (2, 1, 'Ö & co')": {"product:2", "brand:Ö & co", "products"},
        "UPDATE product SET id = 3, brand = 'b''x' WHERE id = 2": {
            "product:2", "product:3", "brand:Ö & co", "brand:b'x", "products",
        },
        "UPDATE product SET brand = NULL WHERE id = 3": {"product:3", "brand:b'x", "products"},
        "UPDATE product SET brand = x'ff00' WHERE id = 3": None,
        "DELETE FROM product WHERE id = 3": None,
        "DELETE FROM product": {"product:1", "brand:acme", "products"},
    }  # fmt: skip
    for statement, tags in steps.items():
        other_program(opened, statement)
        if tags is None:
            # What is no text is never a reason for the write to fail.
            async with opened.engine.begin() as connection:
                assert await opened.waiting() == 1
                await connection.execute(opened.outbox.table.delete())
        else:
            assert await written(opened) == [(tags, True)], statement


async def test_only_the_operations_that_are_asked_for(opened: Shop) -> None:
    """The others leave no row."""
    made = opened.outbox.triggers(PRODUCT, tags=["p:{id}"], dialect="sqlite", operations=["DELETE"])
    other_program(opened, made.script)
    other_program(opened, "INSERT INTO product VALUES (2, 1, 'b'); UPDATE product SET price = 5;")
    assert await written(opened) == []
    other_program(opened, "DELETE FROM product WHERE id = 2")
    assert await written(opened) == [({"p:2"}, False)]


async def test_hostile_names_and_values_stay_what_they_are(opened: Shop) -> None:
    """Quotes and braces in names, templates and values end up in the tag, and nowhere else."""
    other_program(opened, 'CREATE TABLE "ta""ble\'; DROP TABLE product; --" ("co""l\'; --" TEXT)')
    made = opened.outbox.triggers(
        "ta\"ble'; DROP TABLE product; --", tags=["{{x\\';DROP:TABLE:product;--}}:{co\"l'; --}"], dialect="sqlite"
    )
    other_program(opened, str(made))
    other_program(opened, "INSERT INTO \"ta\"\"ble'; DROP TABLE product; --\" VALUES ('\"]\\u0000'';--')")
    assert await written(opened) == [({"{x\\';DROP:TABLE:product;--}:\"]\\u0000';--"}, False)]
    assert await opened.price() == 0


async def test_the_statements_run_one_by_one_as_a_migration_runs_them(opened: Shop) -> None:
    """Through SQLAlchemy's `text`, as Alembic does, colons and all; twice; and the droppers leave nothing behind."""
    made = opened.outbox.triggers(PRODUCT, tags=["a:b:{id}", "x:y", "p%s"], dialect="sqlite")
    for _ in range(2):
        async with opened.engine.begin() as connection:
            for statement in made.create:
                await connection.execute(text(statement))
    other_program(opened, "UPDATE product SET price = 5")
    assert await written(opened) == [({"a:b:1", "x:y", "p%s"}, False)]
    for _ in range(2):
        async with opened.engine.begin() as connection:
            for statement in made.drop:
                await connection.execute(text(statement))
            left = await connection.execute(text("SELECT name FROM sqlite_master WHERE type = 'trigger'"))
            assert left.all() == []


async def test_a_column_that_is_not_there_is_found_when_the_triggers_are_made(opened: Shop) -> None:
    """Not by the first write of another program, which would fail."""
    made = opened.outbox.triggers("product", tags=["product:{nope}"], dialect="sqlite")
    with pytest.raises(sqlite3.OperationalError, match=r"no such column: product\.nope"):
        other_program(opened, str(made))
    other_program(opened, "UPDATE product SET price = 5")
    assert await opened.price() == 5


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ({"tags": []}, "1 to 60 templates"),
        ({"tags": ["a"] * 61}, "1 to 60 templates"),
        ({"tags": [""]}, "must not be empty"),
        ({"tags": ["a" * 2000]}, "over 1024 bytes"),
        ({"tags": ["a b"]}, "printable ASCII"),
        ({"tags": ["Ö"]}, "printable ASCII"),
        ({"tags": ["a{"]}, "malformed braces"),
        ({"tags": ["a{}"]}, "only names of columns"),
        ({"tags": ["a{id!r}"]}, "only names of columns"),
        ({"tags": ["a{id:>5}"]}, "only names of columns"),
        ({"tags": [5]}, "A tag is a str, not int"),
        ({"tags": ["a{nope}"]}, "has no column nope"),
        ({"operations": []}, "The operations are"),
        ({"operations": ["TRUNCATE"]}, "The operations are"),
        ({"dialect": "mysql"}, "for postgresql and for sqlite"),
        ({"truncate": ["a{id}"]}, "has no row"),
    ],
)
def test_what_cannot_work_is_refused(how: dict[str, Any], told: str) -> None:
    """With the reason, before any SQL is there."""
    with pytest.raises(ConfigurationError, match=told):
        Outbox().triggers(PRODUCT, **{"tags": ["a{id}"], "dialect": "postgresql", **how})


@pytest.mark.parametrize("name", ["", "a:b", "a\0b", "a" * 64, "Ö" * 32])
def test_names_that_databases_or_migrations_would_misread_are_refused(name: str) -> None:
    """Empty, with a colon or a zero byte, or so long that PostgreSQL would cut it."""
    with pytest.raises(ConfigurationError, match="A trigger can be made for names of"):
        Outbox().triggers(name, tags=["a"], dialect="postgresql")


def test_schemas_are_for_postgresql() -> None:
    """There they stand in every name; SQLite's triggers stay within one database."""
    made = Outbox(schema="s1").triggers("product", schema="s2", tags=["a"], dialect="postgresql")
    assert '"s1"."cacheinval_outbox"' in str(made)
    assert '"s2"."cacheinval_outbox_of_product"()' in str(made)
    assert 'ON "s2"."product"' in str(made)
    for outbox, schema in ((Outbox(schema="s1"), None), (Outbox(), "s2")):
        with pytest.raises(ConfigurationError, match="no schemas"):
            outbox.triggers("product", schema=schema, tags=["a"], dialect="sqlite")


def test_long_names_are_digested_not_cut() -> None:
    """Two tables with long names that begin alike have triggers of different names, none too long for PostgreSQL."""
    found = {Outbox().triggers("t" * 50 + end, tags=["a"], dialect="postgresql").drop[2] for end in "xy"}
    assert len(found) == 2
    assert all(len(statement) < 100 for statement in found)


def test_without_notify_no_trigger_notifies() -> None:
    """`Outbox(notify=False)` is for databases where that costs too much."""
    for notify in (True, False):
        made = Outbox(notify=notify).triggers("product", tags=["a"], dialect="postgresql")
        assert ("pg_notify" in str(made)) == notify
