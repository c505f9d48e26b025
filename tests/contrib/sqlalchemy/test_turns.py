"""SQLite lets no transaction write that has read before another wrote: who will write waits before it looks."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from threading import Timer
from typing import Any

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, delete, event, insert, select, update
from sqlalchemy.orm import Session

from fastapi_cacheinval.contrib.sqlalchemy.locking import take_turn
from tests.contrib.sqlalchemy.store import Note, Product, Store, labels, obedient

WRITES: dict[str, Callable[[Session], Any]] = {
    "update": lambda session: session.execute(update(Product).where(Product.brand_id == 1).values(brand_id=2)),
    "update by keys": lambda session: session.execute(update(Product), [{"id": 1, "price": 7}]),
    "delete": lambda session: session.execute(delete(Note).where(Note.text == "a")),
    "a link": lambda session: session.execute(insert(labels).values(product_id=1, label_id=1)),
    "the end of links": lambda session: session.execute(delete(labels)),
    "mappings": lambda session: session.bulk_update_mappings(Product.__mapper__, [{"id": 1, "price": 8}]),
    "a new object": lambda session: session.add(Note(id=5, product_id=1)),
}


@pytest.mark.parametrize("name", WRITES)
def test_a_write_waits_for_another_writer(make_store: Callable[..., Store], tmp_path: Path, name: str) -> None:
    """The app begins its transactions itself, as SQLAlchemy's recipe for savepoints does, and the file is in WAL mode."""
    store = make_store()
    file = tmp_path / "0" / "store.db"

    def connect(connection: Any, _: object) -> None:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.isolation_level = None

    engine = obedient(file)
    event.listen(engine, "connect", connect)
    engine.connect().close()
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    other = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    other.execute("UPDATE label SET text = 'x' WHERE id = 2")
    done = Timer(0.2, lambda: other.execute("COMMIT"))
    done.start()
    try:
        with store.purged() as tags, store.sessions(bind=engine) as session:
            WRITES[name](session)
            session.commit()
    finally:
        done.join()
        other.close()
        engine.dispose()
    assert tags or name in ("delete", "the end of links")


def test_a_view_takes_no_turn(store: Store) -> None:
    """SQLite writes in none, and the transaction goes on."""
    view = Table("seen", MetaData(), Column("id", Integer, primary_key=True))
    with store.engine.connect() as connection:
        connection.exec_driver_sql("CREATE VIEW seen AS SELECT id FROM product")
        take_turn(connection, [view])
        assert connection.scalars(select(view.c.id)).all() == [1, 2, 3]
