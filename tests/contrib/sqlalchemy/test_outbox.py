"""An outbox is given the tags inside the transaction, before its commit."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Mapped, Session, mapped_column

from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.contrib.outbox import Outbox
from fastapi_cacheinval.contrib.sqlalchemy import collect_changes
from fastapi_cacheinval.testing import capture_invalidations
from tests.contrib.sqlalchemy.store import TAGS, Base, Label, Product, Store, tags_of

pytestmark = pytest.mark.anyio


class Letter(Base):
    __tablename__ = "letter"
    id: Mapped[int] = mapped_column(primary_key=True)
    tags: Mapped[str]


class ByObject:
    """An outbox that adds an object to the session."""

    def add(self, session: Session, tags: tuple[str, ...], /) -> None:
        session.add(Letter(tags=" ".join(sorted(tags))))


class ByStatement:
    """An outbox that runs a statement on the connection."""

    def add(self, session: Session, tags: tuple[str, ...], /) -> None:
        session.connection().execute(insert(Letter).values(tags=" ".join(sorted(tags))))


def letters(store: Store) -> list[str]:
    with store.sessions() as session:
        return list(session.scalars(select(Letter.tags).order_by(Letter.id)))


@pytest.mark.parametrize("outbox", [ByObject(), ByStatement()], ids=["object", "statement"])
def test_the_rows_are_of_the_same_transaction_and_have_all_of_its_tags(
    make_store: Callable[..., Store], outbox: Any
) -> None:
    """What only the commit flushes has a row of its own; and the purge is made all the same, at once."""
    store = make_store(outbox=outbox)
    with capture_invalidations(store.cache) as receipts:
        with store.sessions() as session:
            session.add(Label(id=11))
            session.flush()
            session.add(Label(id=12))
            session.commit()
            session.add(Label(id=13))
            session.rollback()
            session.add(Label(id=14))
        with store.sessions.begin() as session:
            session.get(Label, 1)
    assert letters(store) == ["label:11", "label:12"]
    assert tags_of(receipts) == [{"label:11", "label:12"}]


def test_savepoints_have_the_rows_of_their_transaction(make_store: Callable[..., Store]) -> None:
    """A savepoint that is rolled back has no part in it."""
    store = make_store(outbox=ByObject())
    with store.sessions.begin() as session:
        with session.begin_nested():
            session.add(Label(id=11))
        inner = session.begin_nested()
        session.add(Label(id=12))
        session.flush()
        inner.rollback()
        session.add(Label(id=13))
    assert letters(store) == ["label:11", "label:13"]


def test_a_transaction_that_commits_over_an_open_savepoint_has_its_row(make_store: Callable[..., Store]) -> None:
    """Ended from outside in, by the session or by the transaction itself."""
    store = make_store(outbox=ByObject())
    for number, by_session in ((11, True), (13, False)):
        with store.sessions() as session:
            transaction = session.begin()
            session.add(Label(id=number))
            session.begin_nested()
            session.add(Label(id=number + 1))
            session.flush()
            if by_session:
                session.commit()
            else:
                transaction.commit()
    assert letters(store) == ["label:11 label:12", "label:13 label:14"]


def test_what_another_listener_changes_in_the_commit_is_handed_over_too(make_store: Callable[..., Store]) -> None:
    """It was registered later, and is heard later."""
    store = make_store(outbox=ByObject())
    done: list[bool] = []

    def audit(session: Session) -> None:
        if not done:
            done.append(True)
            session.add(Label(id=12))

    event.listen(store.sessions, "before_commit", audit)
    with store.sessions.begin() as session:
        session.add(Label(id=11))
    assert letters(store) == ["label:11 label:12"]


def test_what_another_listener_writes_in_the_commit_by_a_statement_is_handed_over_too(
    make_store: Callable[..., Store],
) -> None:
    """No flush tells of it: its tags are a row of their own."""
    store = make_store(outbox=ByStatement())
    moved = update(Product).where(Product.id == 3).values(brand_id=1)
    event.listen(store.sessions, "before_commit", lambda session: session.execute(moved))
    with store.sessions.begin() as session:
        session.get_one(Product, 1).brand_id = 2
        session.flush()
    # The others of its tags stand in the first row.
    assert letters(store) == ["brand:1 brand:2 product:1 products", "product:3"]


def test_an_outbox_that_raises_ends_the_commit(make_store: Callable[..., Store]) -> None:
    """Without its row nothing is committed."""

    class Broken:
        def add(self, *_: object) -> None:
            raise OSError("full")

    store = make_store(outbox=Broken())
    with capture_invalidations(store.cache) as receipts:
        with store.sessions() as session:
            session.add(Label(id=11))
            with pytest.raises(OSError, match="full"):
                session.commit()
        with store.sessions() as session:
            assert session.get(Label, 11) is None
    assert receipts == []


@pytest.fixture
async def sessions(tmp_path: Path) -> AsyncIterator[async_sessionmaker[AsyncSession]]:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'outbox.db'}")
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield async_sessionmaker(engine)
    await engine.dispose()


def test_the_ready_outbox_fits(make_store: Callable[..., Store]) -> None:
    """That of `contrib.outbox`, which knows nothing of this."""
    ready = Outbox()
    store = make_store(outbox=ready)
    ready.metadata.create_all(store.engine)
    with store.sessions.begin() as session:
        session.get_one(Product, 1).brand_id = 2
    with store.sessions() as session:
        session.get_one(Product, 3).brand_id = 1
        session.flush()
        session.rollback()
    with store.sessions() as session:
        (kept,) = session.scalars(select(ready.table.c.tags))
    assert set(json.loads(kept)) == {"product:1", "brand:1", "brand:2", "products"}


@pytest.mark.parametrize("outbox", [ByObject(), ByStatement()], ids=["object", "statement"])
async def test_asynchronous_sessions_have_it_too(sessions: async_sessionmaker[AsyncSession], outbox: Any) -> None:
    """In SQLAlchemy's greenlet, inside the transaction."""
    cache = HTTPCache()
    collect_changes(sessions, cache, TAGS, outbox=outbox)
    async with sessions() as session:
        session.add(Product(id=1, brand_id=3))
        await session.commit()
        assert list(await session.scalars(select(Letter.tags))) == ["brand:3 product:1 products"]


@pytest.mark.parametrize("outbox", [ByObject(), ByStatement()], ids=["object", "statement"])
@pytest.mark.parametrize("in_savepoint", [False, True])
def test_a_statement_of_a_later_listener_has_its_row(
    make_store: Callable[..., Store], outbox: Any, *, in_savepoint: bool
) -> None:
    """Its commit flushes nothing more; what a savepoint took back is in no row."""
    store = make_store(outbox=outbox)

    def audit(session: Session) -> None:
        if session.in_nested_transaction():
            return
        if not in_savepoint:
            session.execute(update(Label).where(Label.id == 1).values(text="x"))
            session.bulk_update_mappings(Label.__mapper__, [{"id": 2, "text": "y"}])
            return
        kept = session.begin_nested()
        session.execute(update(Label).where(Label.id == 1).values(text="x"))
        kept.commit()
        gone = session.begin_nested()
        session.execute(update(Label).where(Label.id == 2).values(text="y"))
        gone.rollback()

    event.listen(store.sessions, "before_commit", audit)
    with store.sessions.begin() as session:
        session.add(Label(id=11))
    found = {tag for letter in letters(store) for tag in letter.split()}
    assert found == {"label:11", "label:1"} | (set() if in_savepoint else {"label:2"})


@pytest.mark.parametrize("later", [False, True])
def test_a_flush_that_fails_in_the_commit_purges_nothing(make_store: Callable[..., Store], *, later: bool) -> None:
    """Nothing of it was sent to be committed, and a second commit has its purge and its row."""
    store = make_store(outbox=ByObject())
    if later:
        event.listen(store.sessions, "before_commit", lambda _: None)
    with capture_invalidations(store.cache) as receipts, store.sessions() as session:
        session.execute(update(Label).where(Label.id == 2).values(text="x"))
        session.add(Label(id=1))
        with pytest.raises(IntegrityError):
            session.commit()
        session.rollback()
        assert receipts == []
        session.add(Label(id=12))
        session.commit()
    assert tags_of(receipts) == [{"label:12"}]
    assert letters(store) == ["label:12"]
