"""What a flush writes is known when the app's own listeners are through: before a row is written they may change it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import ForeignKey, create_engine, delete, event, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Mapper,
    Session,
    mapped_column,
    object_session,
    relationship,
    sessionmaker,
)

from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.contrib.sqlalchemy import UnknownRows, collect_changes
from fastapi_cacheinval.contrib.sqlalchemy.sqlalchemy_private import is_of_flush
from fastapi_cacheinval.testing import capture_invalidations
from tests.contrib.sqlalchemy.store import TAGS, Brand, Label, Product, Review, Store


class Base(DeclarativeBase):
    pass


class Shelf(Base):
    __tablename__ = "shelf"
    id: Mapped[int] = mapped_column(primary_key=True)
    first_id: Mapped[int | None] = mapped_column(ForeignKey("item.id"))
    first: Mapped[Item | None] = relationship(post_update=True)


class Item(Base):
    __tablename__ = "item"
    id: Mapped[int] = mapped_column(primary_key=True)


Change = Callable[[Any], None]
TAGS_OF: dict[str, tuple[Any, set[str]]] = {
    "key": (["brand:{id}"], {"brand:1"}),
    "column": (["brand:{id}", "named:{name}"], {"brand:1", "named:", "named:new"}),
    "function": ([lambda brand: [f"named:{brand.name}"]], {"named:", "named:new"}),
}
CHANGES: dict[str, Change] = {
    "value": lambda brand: setattr(brand, "name", "new"),
    "expression": lambda brand: setattr(brand, "name", Brand.name + "new"),
}


@contextmanager
def heard(target: Any, name: str, change: Change) -> Iterator[None]:
    """The app changes what it is told of while the block runs."""

    def listener(_: object, __: object, one: Any) -> None:
        change(one)

    event.listen(target, name, listener)
    try:
        yield
    finally:
        event.remove(target, name, listener)


def touch(session: Session) -> None:
    """The brand is told of by its product, and nothing of it is changed."""
    product, brand = session.get_one(Product, 3), session.get_one(Brand, 1)
    product.brand = brand


def touch_both(session: Session) -> None:
    """Each brand gets a product of the other."""
    product, other = session.get_one(Product, 3), session.get_one(Product, 1)
    first, second = session.get_one(Brand, 1), session.get_one(Brand, 2)
    product.brand, other.brand = first, second


@pytest.mark.parametrize("change", list(CHANGES))
@pytest.mark.parametrize("listens", [Brand, Mapper])
@pytest.mark.parametrize("kind", list(TAGS_OF))
def test_a_row_that_a_listener_changes_on_its_way_is_purged(
    make_store: Callable[..., Store], kind: str, listens: Any, change: str
) -> None:
    """By the tags that it had, and by those that it has: a listener that counts revisions comes after the watch."""
    tags, expected = TAGS_OF[kind]
    store = make_store({Brand: tags})

    def change_brand(one: Any) -> None:
        if isinstance(one, Brand):
            CHANGES[change](one)

    with heard(listens, "before_update", change_brand), store.purged() as purged, store.sessions.begin() as session:
        touch(session)
    with store.sessions() as session:
        assert session.get_one(Brand, 1).name == "new"
    # The other one has lost the product, and was not loaded.
    assert purged == expected


def test_a_row_that_is_only_touched_is_not_purged(make_store: Callable[..., Store]) -> None:
    """A listener that changes another row lets it be."""
    store = make_store({Brand: "brand:{id}", Product: "product:{id}"})

    def change_other(one: Brand) -> None:
        if one.id == 2:
            one.name = "new"

    with heard(Brand, "before_update", change_other), store.purged() as purged, store.sessions.begin() as session:
        touch_both(session)
    assert purged == {"brand:2", "product:1", "product:3"}


@pytest.mark.parametrize("sends", [True, False])
def test_a_listener_may_change_another_row_of_which_it_was_told_before(store: Store, *, sends: bool) -> None:
    """The last listener decides, also where one has sent a statement before it."""

    def change(one: Brand) -> None:
        if one.id == 2:
            session = object_session(one)
            assert session is not None
            if sends:
                session.connection().execute(update(Label.__table__).values(text="sent"))  # type: ignore[arg-type]
            session.get_one(Brand, 1).name = "new"

    with heard(Brand, "before_update", change), store.purged() as purged, store.sessions.begin() as session:
        touch_both(session)
    with store.sessions() as session:
        assert session.get_one(Brand, 1).name == "new"
    assert purged >= {"brand:1"}


def test_what_a_function_made_of_the_row_before_the_flush_is_purged(make_store: Callable[..., Store]) -> None:
    """The rows that it follows are written first."""
    store = make_store()
    with store.sessions.begin() as session:
        session.add(Review(id=1, product_id=1))

    def change(one: Review) -> None:
        one.stars = 1

    for changes in (False, True):
        with store.sessions.begin() as session:
            session.get_one(Product, 1).brand_id = 1
        with store.purged() as purged, store.sessions() as session:
            review = session.get_one(Review, 1)
            review.product.brand_id = 2
            review.stars = review.stars
            if changes:
                with heard(Review, "before_update", change):
                    session.commit()
            else:
                session.commit()
        found = {tag for tag in purged if tag.startswith(("stars", "reviews"))}
        assert found == ({"stars:5", "stars:1", "reviews:1", "reviews:2"} if changes else set())


@pytest.mark.parametrize("name", ["before_insert", "before_update"])
def test_a_write_in_an_expression_that_a_listener_sets_is_refused(make_store: Callable[..., Store], name: str) -> None:
    """Nobody knows which rows it changes, so that nothing is sent."""
    store = make_store(TAGS)

    def change(one: Brand) -> None:
        gone = delete(Label).returning(Label.text).cte()
        one.name = select(gone.c.text).scalar_subquery()  # type: ignore[assignment]

    with heard(Brand, name, change), store.sessions() as session:
        if name == "before_insert":
            session.add(Brand(id=9))
        else:
            touch(session)
        with pytest.raises(UnknownRows):
            session.commit()


def test_nobody_listens_on_when_a_flush_is_over(store: Store) -> None:
    """Nor when it has failed: a connection that the app keeps is left as it was."""
    with store.engine.connect() as connection, store.sessions(bind=connection) as session:
        listeners: Any = connection.dispatch
        session.add(Brand(id=9))
        session.flush()
        assert list(listeners.before_execute) == []
        session.add(Product(id=9, brand_id=99))
        with pytest.raises(IntegrityError):
            session.flush()
        assert list(listeners.before_execute) == []


def test_a_statement_of_a_flush_is_told_from_one_of_the_app(store: Store) -> None:
    """By its options, for each of the ways in which a flush writes."""
    told: list[bool] = []
    with store.engine.connect() as connection, store.sessions(bind=connection) as session:
        brand = session.get_one(Brand, 1)

        def listen(_: object, statement: Any, __: object, ___: object, options: Any) -> None:
            if statement.is_insert or statement.is_update:
                told.append(is_of_flush(options, brand))

        event.listen(connection, "before_execute", listen)
        brand.name = "new"
        session.flush()
        session.add(Brand(id=9))
        session.flush()
        brand.name = Brand.name + "er"  # type: ignore[assignment]
        session.flush()
        session.connection().execute(update(Brand.__table__).values(name=""))  # type: ignore[arg-type]
    assert told == [True, True, True, False]


def test_a_row_is_purged_that_its_batch_has_no_statement_for(tmp_path: Path) -> None:
    """A relationship with `post_update` writes it later, and no event tells of that."""
    engine = create_engine(f"sqlite:///{tmp_path / 'shelf.db'}")
    Base.metadata.create_all(engine)
    sessions, cache = sessionmaker(engine), HTTPCache()
    with sessions.begin() as session:
        session.add_all([Shelf(id=1), Item(id=1)])
    collector = collect_changes(sessions, cache, {Shelf: ["shelf:{id}", "first:{first_id}"]})
    with capture_invalidations(cache) as receipts, sessions.begin() as session:
        shelf, item = session.get_one(Shelf, 1), session.get_one(Item, 1)
        shelf.first = item
    collector.stop()
    engine.dispose()
    assert [set(receipt.tags) for receipt in receipts] == [{"shelf:1", "first:1"}]
