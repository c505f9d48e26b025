"""No row is changed in silence: what a statement changes is purged, or it is refused before it is run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import (
    Column,
    Engine,
    ForeignKey,
    Integer,
    String,
    Table,
    TypeDecorator,
    column,
    create_engine,
    delete,
    event,
    exists,
    func,
    insert,
    lambda_stmt,
    select,
    text,
    union_all,
    update,
    values,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.exc import IntegrityError, ResourceClosedError
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.ext.horizontal_shard import ShardedSession
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    aliased,
    joinedload,
    mapped_column,
    selectinload,
    sessionmaker,
    synonym,
    with_loader_criteria,
)

from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.contrib.sqlalchemy import UnknownRows, collect_changes
from fastapi_cacheinval.contrib.sqlalchemy.statements import writes
from fastapi_cacheinval.testing import capture_invalidations
from tests.contrib.sqlalchemy.store import (
    TAGS,
    Base,
    Brand,
    Bundle,
    Label,
    Note,
    Product,
    Review,
    Store,
    make_engine,
    tags_of,
)

pytestmark = pytest.mark.anyio

# -- writes inside statements ------------------------------------------------------------------

CHANGE: Any = update(Product).where(Product.id == 1).values(price=3).returning(Product.id, Product.price)
CTE = CHANGE.cte("changed")
INSIDE: dict[str, Any] = {
    "cte": select(CTE.c.id),
    "add_cte": select(Product).add_cte(CHANGE.cte("beside")),
    "add_cte on text": text("SELECT 1").columns(column("a")).add_cte(CHANGE.cte("beside")),
    "nested cte": select(select(CTE.c.id).cte("outer").c.id),
    "from_statement of a cte": select(Product).from_statement(select(Product).join(CTE, CTE.c.id == Product.id)),
    "alias": select(aliased(Product, update(Product).values(price=1).returning(Product).cte())),
    "exists": select(Product).where(exists().where(CTE.c.id == Product.id)),
    "named by a column only": select(Product).where(Product.id == CTE.c.id),
    "order by": select(Product.id).order_by(CTE.c.id),
    "having": select(Product.id).group_by(Product.id).having(func.max(CTE.c.id) > 1),
    "union": union_all(select(CTE.c.id), select(Product.id)),
    "lateral": select(Product.id, select(CTE.c.id).lateral().c.id),
    "scalar": select(select(CTE.c.id).scalar_subquery()),
    "over": select(func.sum(Product.id).over(partition_by=CTE.c.id)),
    "limit": select(Product.id).limit(select(CTE.c.id).scalar_subquery()),
    "criteria": select(Label).options(with_loader_criteria(Label, Label.id.in_(select(CTE.c.id)))),
    "criteria of a relationship": select(Brand).options(
        selectinload(Brand.products.and_(Product.id.in_(select(CTE.c.id))))
    ),
    "criteria of a further one": select(Review).options(
        joinedload(Review.product).selectinload(Product.labels.and_(Label.id == select(CTE.c.id).scalar_subquery()))
    ),
    "alias of a relationship": select(Brand).options(selectinload(Brand.products.of_type(aliased(Product, CTE)))),
    "insert from": insert(Label).from_select(["id"], select(delete(Product).returning(Product.id).cte().c.id)),
    "insert values": insert(Label).values([{"id": 7}, {"id": select(CTE.c.id).scalar_subquery()}]),
    "values": select(values(column("x", Integer), name="v").data([(1,), (select(CTE.c.id).scalar_subquery(),)])),
    "update where": update(Label).where(Label.id == CTE.c.id).values(text="x"),
    "update values": update(Label).values(text=select(CTE.c.price).scalar_subquery()),
    "delete where": delete(Label).where(Label.id.in_(select(CTE.c.id))),
    "returning": update(Label).values(text="x").returning(select(CTE.c.id).scalar_subquery()),
    "upsert": upsert(Label)
    .values(id=1)
    .on_conflict_do_update(["id"], set_={"text": select(CTE.c.price).scalar_subquery()}),
}


@pytest.mark.parametrize("kind", list(INSIDE))
def test_a_write_inside_a_statement_is_found_wherever_it_stands(kind: str) -> None:
    """By a walk over the whole statement: each has one that is not the statement itself."""
    found = writes(INSIDE[kind])
    assert [one for one in found if one is not INSIDE[kind]]


@pytest.mark.parametrize("kind", list(INSIDE))
def test_a_statement_with_a_write_inside_is_refused_before_it_is_run(store: Store, kind: str) -> None:
    """It never reaches the database."""
    asked: list[str] = []
    event.listen(store.engine, "before_cursor_execute", lambda *arguments: asked.append(arguments[2]))
    with store.purged() as tags, store.sessions() as session:
        with pytest.raises(UnknownRows, match=r"(another write inside|wide=)"):
            session.execute(INSIDE[kind])
        session.commit()
    assert asked == []
    assert tags == set()


def test_a_write_in_a_parameter_is_found(store: Store) -> None:
    """An expression may stand where a value does."""
    with store.sessions() as session, pytest.raises(UnknownRows, match="another write inside"):
        session.execute(insert(Label), [{"id": 5, "text": select(CTE.c.price).scalar_subquery()}])


def test_a_write_inside_purges_the_wide_tags(make_store: Callable[..., Store]) -> None:
    """Compiled for PostgreSQL it is what it is; SQLite cannot run it, so a listener stands in for the database."""
    store = make_store(wide={Product: "all-products", Label: "all-labels", Note: "all-notes", Brand: "all-brands"})

    def instead(state: Any) -> Any:
        if "WITH" in str(state.statement.compile(dialect=postgresql.dialect())):
            return session.execute(select(Label.id))
        return None

    event.listen(store.sessions, "do_orm_execute", instead, retval=True)
    for kind, expected in (("cte", {"all-products"}), ("insert from", {"all-products", "all-notes", "all-labels"})):
        with store.purged() as tags, store.sessions() as session:
            session.execute(INSIDE[kind])
            session.commit()
        assert tags >= expected


def test_rows_loaded_from_an_update_are_known(store: Store) -> None:
    """`select(...).from_statement(update(...).returning(...))`: the objects are the app's, and their tags are purged."""
    moved = update(Product).where(Product.brand_id == 1).values(brand_id=2).returning(Product)
    with store.purged() as tags, store.sessions.begin() as session:
        products = session.scalars(select(Product).from_statement(moved)).all()
        assert [(product.id, product.brand_id) for product in products] == [(1, 2), (2, 2)]
    assert tags == {"product:1", "product:2", "brand:1", "brand:2", "products"}
    made = insert(Label).values([{"text": "a"}, {"text": "b"}]).returning(Label)
    with store.purged() as tags, store.sessions.begin() as session:
        assert len(session.scalars(select(Label).from_statement(made)).all()) == 2
    assert tags == {"label:3", "label:4"}
    gone = delete(Label).where(Label.id == 4).returning(Label.id)
    with store.purged() as tags, store.sessions.begin() as session:
        assert session.execute(select(Label.id).from_statement(gone)).all() == [(4,)]
    assert tags == {"label:4"}


def test_a_statement_that_is_a_lambda_is_refused(store: Store) -> None:
    """What is in it is seen; which rows it meets is not."""
    with store.sessions() as session, pytest.raises(UnknownRows):
        session.execute(lambda_stmt(lambda: update(Product).values(price=1)))


def test_an_update_of_an_alias_is_refused(store: Store) -> None:
    """Of the class and of its table."""
    other: Any = Product.__table__.alias("p")  # type: ignore[attr-defined]
    entity = aliased(Product)
    with store.sessions() as session:
        for statement in (update(other).values(price=1), delete(other), update(entity).values({entity.price: 1})):
            with pytest.raises(UnknownRows, match="alias"):
                session.execute(statement)


def test_binds_for_another_class_do_not_hide_the_table(store: Store) -> None:
    """`bind_arguments` say where a statement is run, and not what it is on."""
    table: Any = Product.__table__
    with store.purged() as tags, store.sessions.begin() as session:
        session.execute(update(table).where(table.c.id == 3).values(price=2), bind_arguments={"mapper": Label})
    assert tags == {"product:3", "brand:2", "products"}


# -- inserts that meet rows that are there -----------------------------------------------------


class Own(DeclarativeBase):
    pass


class Lower(TypeDecorator[str]):
    impl = String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Any) -> str | None:
        return None if value is None else value.lower()


class Page(Own):
    """A table with a second key, in which statements may find a row that nobody has named."""

    __tablename__ = "page"
    id: Mapped[int] = mapped_column(primary_key=True)
    slug: Mapped[str] = mapped_column(unique=True)
    title: Mapped[str] = mapped_column(default="")
    revision: Mapped[int] = mapped_column(default=1, onupdate=lambda: 2)


class Word(Own):
    __tablename__ = "word"
    text: Mapped[str] = mapped_column(Lower, primary_key=True)
    count: Mapped[int] = mapped_column(default=0)


class Met(Own):
    """Its tags are only in its method, and nothing has met it before."""

    __tablename__ = "met"
    id: Mapped[int] = mapped_column(primary_key=True)
    place: Mapped[int] = mapped_column(default=0)

    def __cache_tags__(self) -> list[str]:
        return [f"met:{self.id}:{self.place}"]


class Person(Own):
    __tablename__ = "person"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(default="")
    kind: Mapped[str] = mapped_column(default="person")
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "person"}  # noqa: RUF012


class Worker(Person):
    """Its rows are in two tables."""

    __tablename__ = "worker"
    id: Mapped[int] = mapped_column(ForeignKey("person.id"), primary_key=True)
    place: Mapped[int] = mapped_column(default=0)
    __mapper_args__ = {"polymorphic_identity": "worker"}  # noqa: RUF012


class Shelf(Own):
    """Its place is set by other names, too."""

    __tablename__ = "shelf"
    id: Mapped[int] = mapped_column(primary_key=True)
    place: Mapped[int] = mapped_column("spot", default=1)
    where = synonym("place")

    @hybrid_property
    def doubled(self) -> int:
        return self.place * 2

    @doubled.inplace.update_expression
    @classmethod
    def _set_doubled(cls, value: Any) -> list[tuple[Any, Any]]:
        return [(cls.place, value // 2)]


class Twin(Own):
    """Another class on the table of pages."""

    __table__ = Page.__table__  # type: ignore[assignment]


OWN: dict[Any, Any] = {
    Page: ["page:{id}"],
    Word: ["word:{text}"],
    Person: ["person:{id}", "named:{name}"],
    Worker: ["worker:{id}", "place:{place}"],
    Shelf: ["shelf:{id}", "shelves:{place}"],
}


@pytest.fixture
def pages(tmp_path: Path) -> Iterator[Engine]:
    engine = create_engine(f"sqlite:///{tmp_path / 'pages.db'}")
    Own.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all([Page(id=1, slug="a"), Page(id=2, slug="b"), Word(text="one"), Met(id=1)])
        session.add_all([Worker(id=1, name="Ann", place=1), Worker(id=2, name="Ben", place=2), Person(id=3)])
        session.commit()
    yield engine
    engine.dispose()


def purged_by(engine: Engine, work: Callable[[Session], Any], tags: Any = OWN, **options: Any) -> set[str]:
    """The tags that a transaction purges."""
    cache, sessions = HTTPCache(), sessionmaker(engine)
    collector = collect_changes(sessions, cache, tags, **options)
    try:
        with capture_invalidations(cache) as receipts, sessions.begin() as session:
            work(session)
    finally:
        collector.stop()
    found = set().union(*tags_of(receipts))
    return found | ({"everything"} if any(receipt.everything for receipt in receipts) else set())


def test_an_upsert_purges_the_row_that_it_meets_and_not_the_one_that_it_names(pages: Engine) -> None:
    """Its conflict is with another key than the primary one: the database says which row it was."""
    statement = upsert(Page).values(id=9, slug="a", title="new")
    statement = statement.on_conflict_do_update(["slug"], set_={"title": "new"})
    assert purged_by(pages, lambda session: session.execute(statement)) == {"page:1"}
    many = upsert(Page).on_conflict_do_update(["slug"], set_={"title": "newer"})
    rows = [{"id": 8, "slug": "b"}, {"id": 10, "slug": "c"}]
    assert purged_by(pages, lambda session: session.execute(many, rows)) == {"page:2", "page:10"}


def test_an_insert_that_replaces_rows_is_refused(pages: Engine) -> None:
    """`OR REPLACE` deletes rows of other keys, and no database says which."""
    statement = insert(Page).prefix_with("OR REPLACE").values(id=9, slug="a")
    with pytest.raises(UnknownRows, match="may replace rows"):
        purged_by(pages, lambda session: session.execute(statement))
    ignored = insert(Page).prefix_with("OR IGNORE").values(id=11, slug="a")
    assert purged_by(pages, lambda session: session.execute(ignored)) <= {"page:11"}


def test_a_key_that_its_type_writes_otherwise_is_read_back(pages: Engine) -> None:
    """The tag is that of the row, and not that of what was handed in."""
    assert purged_by(pages, lambda session: session.execute(insert(Word).values(text="TWO"))) == {"word:two"}
    assert purged_by(pages, lambda s: s.execute(update(Word), [{"text": "ONE", "count": 3}])) == {"word:one"}


def test_a_class_that_nothing_has_met_yet_is_seen_through_its_table(pages: Engine) -> None:
    """Its method counts from the first statement on."""
    table: Any = Met.__table__
    assert purged_by(pages, lambda s: s.execute(update(table).values(place=4)), None) == {"met:1:0", "met:1:4"}
    assert purged_by(pages, lambda s: s.execute(insert(table).values(id=2)), None) == {"met:2:0"}


def test_a_class_on_the_same_table_is_not_passed_over(pages: Engine) -> None:
    """A statement on one class changes the rows of the other."""
    statement = update(Page).where(Page.id == 1).values(title="x")
    with pytest.raises(UnknownRows, match="shares with another class"):
        purged_by(pages, lambda session: session.execute(statement), {Page: ["page:{id}"], Twin: ["twin:{id}"]})
    tags = purged_by(
        pages, lambda s: s.execute(statement), {Page: ["page:{id}"], Twin: ["twin:{id}"]}, wide={Twin: "twins"}
    )
    assert tags == {"page:1", "twins"}


def test_a_column_that_the_mapping_updates_counts_as_set(pages: Engine) -> None:
    """`onupdate` moves a tag that the statement does not name."""
    tags = {Page: ["page:{id}", "revision:{revision}"]}
    statement = update(Page).where(Page.id == 1).values(title="x")
    assert purged_by(pages, lambda s: s.execute(statement), tags) == {"page:1", "revision:1", "revision:2"}


@pytest.mark.parametrize("by", ["attribute", "name", "column", "synonym", "hybrid", "parameter", "ordered"])
def test_a_value_may_be_set_by_any_of_its_names(pages: Engine, by: str) -> None:
    """By a synonym, or by a hybrid that stands for it, the row moves as well."""
    table: Any = Shelf.__table__
    one: Any = update(Shelf).where(Shelf.id == 1)
    ways: dict[str, tuple[Any, Any]] = {
        "attribute": (one.values({Shelf.place: 5}), None),
        "name": (one.values(place=5), None),
        "column": (update(table).where(table.c.id == 1).values(spot=5), None),
        "synonym": (one.values(where=5), None),
        "hybrid": (one.values({Shelf.doubled: 10}), None),
        "parameter": (update(table).where(table.c.id == 1), {"spot": 5}),
        "ordered": (one.ordered_values((Shelf.place, 5)), None),
    }
    with Session(pages) as session:
        session.add(Shelf(id=1))
        session.commit()
    statement, parameters = ways[by]
    found = purged_by(pages, lambda session: session.execute(statement, parameters))
    assert found == {"shelf:1", "shelves:1", "shelves:5"}


@pytest.mark.parametrize("kind", ["update", "core", "base", "by key", "delete", "insert", "base core"])
def test_rows_in_two_tables_are_found_by_either(pages: Engine, kind: str) -> None:
    """Joined-table inheritance: a statement is on one of the tables, and the tags take both."""
    worker, person = Worker.__table__, Person.__table__
    cases: dict[str, tuple[Callable[[Session], Any], set[str]]] = {
        "update": (
            lambda s: s.execute(update(Worker).where(Worker.place == 1).values(place=5)),
            {"person:1", "named:Ann", "worker:1", "place:1", "place:5"},
        ),
        "core": (
            lambda s: s.execute(update(worker).where(worker.c.place == 1).values(place=5)),  # type: ignore[arg-type]
            {"person:1", "named:Ann", "worker:1", "place:1", "place:5"},
        ),
        "base": (
            lambda s: s.execute(update(Person).where(Person.id == 2).values(name="Bea")),
            {"person:2", "named:Ben", "named:Bea", "worker:2", "place:2"},
        ),
        "base core": (
            lambda s: s.execute(update(person).where(person.c.id == 2).values(name="Bea")),  # type: ignore[arg-type]
            {"person:2", "named:Ben", "named:Bea", "worker:2", "place:2"},
        ),
        "by key": (
            lambda s: s.execute(update(Worker), [{"id": 1, "name": "Amy", "place": 7}]),
            {"person:1", "named:Ann", "named:Amy", "worker:1", "place:1", "place:7"},
        ),
        "delete": (
            lambda s: s.execute(delete(Worker).where(Worker.place == 2)),
            {"person:2", "named:Ben", "worker:2", "place:2"},
        ),
        "insert": (
            lambda s: s.execute(insert(Worker), [{"name": "Cem", "place": 3}, {"name": "Dan", "place": 4}]),
            {"person:4", "person:5", "named:Cem", "named:Dan", "worker:4", "worker:5", "place:3", "place:4"},
        ),
    }
    work, expected = cases[kind]
    assert purged_by(pages, work) == expected


def test_criteria_of_a_statements_options_hold(store: Store) -> None:
    """`with_loader_criteria` narrows the app's statement, and what is looked up with it."""
    statement = update(Product).values(brand_id=2).options(with_loader_criteria(Product, Product.id == 1))
    with store.purged() as tags, store.sessions.begin() as session:
        assert session.execute(statement).rowcount == 1  # type: ignore[attr-defined]
    assert tags == {"product:1", "brand:1", "brand:2", "products"}


CRITERIA: dict[str, Any] = {
    "an expression": with_loader_criteria(Product, Product.id == 1),
    "a lambda": with_loader_criteria(Product, lambda cls: cls.id == 1),
    "of aliases as well": with_loader_criteria(Product, lambda cls: cls.id == 1, include_aliases=True),
}


@pytest.mark.parametrize("kind", CRITERIA)
@pytest.mark.parametrize("statement", [update(Product).values(brand_id=2), delete(Product)], ids=["update", "delete"])
def test_criteria_of_options_hold_where_the_database_returns_no_rows(store: Store, statement: Any, kind: str) -> None:
    """They are a condition as any other, about the row at hand alone."""
    store.engine.dialect.update_returning = store.engine.dialect.delete_returning = False
    with store.purged() as tags, store.sessions.begin() as session:
        assert session.execute(statement.options(CRITERIA[kind])).rowcount == 1  # type: ignore[attr-defined]
    assert {"product:1", "brand:1"} <= tags
    assert "product:3" not in tags


@pytest.mark.parametrize(
    "option",
    [
        with_loader_criteria(Product, Product.brand_id.in_(select(Brand.id))),
        with_loader_criteria(Product, lambda cls: cls.brand_id.in_(select(Brand.id))),
    ],
    ids=["an expression", "a lambda"],
)
def test_criteria_over_other_tables_are_refused_where_the_database_returns_no_rows(store: Store, option: Any) -> None:
    """Others may change those tables between the look and the statement."""
    store.engine.dialect.update_returning = False
    with store.sessions.begin() as session, pytest.raises(UnknownRows, match="other writers may change"):
        session.execute(update(Product).values(brand_id=2).options(option))


def test_criteria_that_call_a_function_are_refused(store: Store) -> None:
    """In a lambda, too."""
    option: Any = with_loader_criteria(Product, lambda cls: cls.id == func.take_ticket())
    with store.sessions.begin() as session, pytest.raises(UnknownRows, match="calls a function"):
        session.execute(update(Product).values(brand_id=2).options(option))


# -- autocommit --------------------------------------------------------------------------------


def autocommitting(engine: Engine, how: str) -> Any:
    """A session whose writes stand at once."""
    if how == "engine":
        return sessionmaker(engine.execution_options(isolation_level="AUTOCOMMIT"))
    if how == "created":
        return sessionmaker(create_engine(engine.url, isolation_level="AUTOCOMMIT"))
    if how == "driver":
        return sessionmaker(create_engine(engine.url, connect_args={"isolation_level": None}))
    return sessionmaker(engine)


def _flush(session: Session) -> None:
    session.add(Label(id=9))
    session.flush()


def _flush_a_delete(session: Session) -> None:
    session.delete(session.get_one(Product, 3))
    session.flush()


WORKS: dict[str, tuple[Callable[[Session], Any], set[str]]] = {
    "update": (
        lambda s: s.execute(update(Product).where(Product.id == 3).values(brand_id=1)),
        {"product:3", "brand:2", "brand:1", "products"},
    ),
    "delete": (lambda s: s.execute(delete(Label).where(Label.id == 2)), {"label:2"}),
    "insert": (lambda s: s.execute(insert(Label), [{"text": "a"}]), {"label:3"}),
    "query": (lambda s: s.query(Label).filter_by(id=2).delete(), {"label:2"}),
    "flush": (_flush, {"label:9"}),
    "flushed delete": (_flush_a_delete, {"product:3", "brand:2", "products"}),
    "mappings": (lambda s: s.bulk_insert_mappings(Label, [{"id": 9}]), {"label:9"}),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("end", ["rollback", "close", "commit", "none"])
@pytest.mark.parametrize("how", ["engine", "created", "driver", "session"])
@pytest.mark.parametrize("kind", list(WORKS))
def test_what_is_written_in_autocommit_is_purged_however_its_session_ends(
    tmp_path: Path, kind: str, how: str, end: str
) -> None:
    """The write stands when it is made, and no commit will come."""
    store = Store(tmp_path, TAGS)
    store.collector.stop()
    cache, sessions = HTTPCache(), autocommitting(store.engine, how)
    collector = collect_changes(sessions, cache, TAGS)
    work, expected = WORKS[kind]
    with capture_invalidations(cache) as receipts:
        session = sessions()
        if how == "session":
            session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
        work(session)
        if end != "none":
            getattr(session, end)()
        assert set().union(*tags_of(receipts)) >= expected
        session.close()
    collector.stop()
    sessions.kw["bind"].dispose()
    store.engine.dispose()


async def test_an_asynchronous_session_in_autocommit_purges_too(tmp_path: Path) -> None:
    """In SQLAlchemy's greenlet, when the statement returns."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'store.db'}", isolation_level="AUTOCOMMIT")
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    cache, sessions = HTTPCache(), async_sessionmaker(engine)
    collector = collect_changes(sessions, cache, TAGS)
    with capture_invalidations(cache) as receipts:
        async with sessions() as session:
            session.add(Label(id=1))
            await session.flush()
            await session.execute(update(Label).values(text="x"))
            await session.rollback()
    collector.stop()
    await engine.dispose()
    assert tags_of(receipts) == [{"label:1"}, {"label:1"}]


def test_a_flush_that_fails_half_way_in_autocommit_purges_everything(tmp_path: Path) -> None:
    """One row stands, the other does not, and the flush tells of neither."""
    store = Store(tmp_path, TAGS)
    store.collector.stop()
    cache, sessions = HTTPCache(), autocommitting(store.engine, "engine")
    collector = collect_changes(sessions, cache, TAGS)
    with capture_invalidations(cache) as receipts, sessions() as session:
        session.add_all([Brand(id=9), Label(id=1)])
        with pytest.raises(IntegrityError):
            session.flush()
        session.rollback()
    collector.stop()
    with store.engine.connect() as connection:
        stood = connection.execute(text("SELECT count(*) FROM brand WHERE id = 9")).scalar()
    store.engine.dispose()
    assert stood == 1
    assert any(receipt.everything for receipt in receipts)


def test_a_transaction_that_is_begun_by_hand_is_no_autocommit(tmp_path: Path) -> None:
    """The recipe for SQLite's savepoints: the driver does not begin, a listener does. A rollback purges nothing."""
    store = Store(tmp_path, TAGS)
    store.collector.stop()
    engine = create_engine(store.engine.url, connect_args={"isolation_level": None})
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN"))
    cache, sessions = HTTPCache(), sessionmaker(engine)
    collector = collect_changes(sessions, cache, TAGS)
    with capture_invalidations(cache) as receipts, sessions() as session:
        session.execute(update(Label).values(text="x"))
        session.rollback()
        assert receipts == []
        session.execute(update(Label).values(text="x"))
        session.commit()
    collector.stop()
    engine.dispose()
    store.engine.dispose()
    assert tags_of(receipts) == [{"label:1", "label:2"}]


SEEN: dict[str, tuple[Any, Any, set[str]]] = {
    "update": (update(Product).where(Product.id == 3).values(brand_id=1), None, {"product:3", "brand:2", "brand:1"}),
    "update returning": (
        update(Product).where(Product.id == 3).values(price=1).returning(Product),
        None,
        {"product:3", "brand:2"},
    ),
    "update returning a column": (
        update(Product).where(Product.brand_id == Brand.id, Brand.id == 2).values(price=1).returning(Product.price),
        None,
        {"product:3", "brand:2"},
    ),
    "moved returning": (
        update(Product).where(Product.id == 3).values(brand_id=1).returning(Product.price),
        None,
        {"product:3", "brand:2", "brand:1"},
    ),
    "update by key": (update(Product), [{"id": 3, "price": 4}], {"product:3", "brand:2"}),
    "delete": (delete(Product).where(Product.id == 3), None, {"product:3", "brand:2"}),
    "delete returning": (
        delete(Product).where(Product.id == 3).returning(Product.price),
        None,
        {"product:3", "brand:2"},
    ),
    "insert": (insert(Product).values(brand_id=2), None, {"product:4", "brand:2"}),
    "insert many": (insert(Product), [{"brand_id": 2}, {"brand_id": 1}], {"product:4", "product:5", "brand:1"}),
    "insert several": (insert(Product).values([{"brand_id": 2}, {"brand_id": 1}]), None, {"product:4", "product:5"}),
    "insert returning": (insert(Product).returning(Product), [{"brand_id": 2}], {"product:4", "brand:2"}),
    "insert from select": (
        insert(Product).from_select(["brand_id"], select(Product.brand_id).where(Product.id == 3)),
        None,
        {"product:4", "brand:2"},
    ),
    "from_statement": (
        select(Product).from_statement(update(Product).where(Product.id == 3).values(brand_id=1).returning(Product)),
        None,
        {"product:3", "brand:2", "brand:1"},
    ),
}


def _rows_of(result: Any) -> list[Any]:
    try:
        return list(result)
    except ResourceClosedError:
        return []


@pytest.mark.parametrize("kind", list(SEEN))
async def test_asynchronous_sessions_see_what_plain_ones_do(tmp_path: Path, kind: str) -> None:
    """They load objects at once: the rows are looked at before that, and the app has the same objects."""
    statement, parameters, expected = SEEN[kind]
    seen: list[Any] = []
    for asynchronous in (False, True):
        folder = tmp_path / str(asynchronous)
        folder.mkdir()
        store = Store(folder)
        cache = HTTPCache()
        if not asynchronous:
            collector = collect_changes(store.sessions, cache, TAGS)
            with capture_invalidations(cache) as receipts, store.sessions() as session:
                result: Any = session.execute(statement, parameters)
                rows = _rows_of(result)
                session.commit()
        else:
            engine = create_async_engine(f"sqlite+aiosqlite:///{store.engine.url.database}")
            sessions = async_sessionmaker(engine)
            collector = collect_changes(sessions, cache, TAGS)
            with capture_invalidations(cache) as receipts:
                async with sessions() as session_:
                    result = await session_.execute(statement, parameters)
                    rows = _rows_of(result)
                    await session_.commit()
            await engine.dispose()
        collector.stop()
        store.close()
        assert tags_of(receipts)[0] >= expected
        assert not receipts[0].everything
        seen.append((len(rows), tags_of(receipts)))
    assert seen[0] == seen[1]


async def test_streams_of_an_asynchronous_session_see_it_too(tmp_path: Path) -> None:
    """`session.stream(...)` and `session.stream_scalars(...)` of what an UPDATE returns."""
    store = Store(tmp_path)
    cache, engine = HTTPCache(), create_async_engine(f"sqlite+aiosqlite:///{store.engine.url.database}")
    sessions = async_sessionmaker(engine)
    collector = collect_changes(sessions, cache, TAGS)
    moved = update(Product).where(Product.brand_id == 1).values(brand_id=2)
    with capture_invalidations(cache) as receipts:
        async with sessions() as session:
            streamed = await session.stream_scalars(moved.returning(Product))
            assert sorted([product.id async for product in streamed]) == [1, 2]
            rows = await session.stream(delete(Label).returning(Label.id), execution_options={"yield_per": 1})
            assert sorted([row.id async for row in rows]) == [1, 2]
            await session.commit()
    collector.stop()
    await engine.dispose()
    store.close()
    assert tags_of(receipts) == [{"product:1", "product:2", "brand:1", "brand:2", "products", "label:1", "label:2"}]


def test_a_class_with_a_database_of_its_own_is_read_there(tmp_path: Path) -> None:
    """`binds` of a session, for flushes and for statements; another database has other rows."""
    engines = []
    for name, brand in (("one", 1), ("two", 2)):
        (tmp_path / name).mkdir()
        engines.append(make_engine(tmp_path / name))
        with Session(engines[-1]) as session:
            session.add_all([Brand(id=1), Brand(id=2), Product(id=1, brand_id=brand), Label(id=1)])
            session.commit()
    cache, sessions = HTTPCache(), sessionmaker(engines[0], binds={Product: engines[1]})
    collector = collect_changes(sessions, cache, TAGS)
    with capture_invalidations(cache) as receipts, sessions() as session:
        session.execute(update(Product).values(price=1))
        session.commit()
        session.get_one(Product, 1).price = 2
        session.commit()
        session.bulk_update_mappings(Product, [{"id": 1, "price": 3}])  # type: ignore[arg-type]
        session.commit()
        session.execute(update(Product), [{"id": 1, "price": 4}])
        session.commit()
    collector.stop()
    for engine in engines:
        engine.dispose()
    assert tags_of(receipts) == [{"product:1", "brand:2", "products"}] * 4


# -- several databases -------------------------------------------------------------------------


def test_a_sharded_session_is_seen_in_its_flushes_and_refused_in_its_statements(tmp_path: Path) -> None:
    """Each object is read where it is; which databases a statement is run on is not ours to say."""
    shards = {}
    for name in ("even", "odd"):
        (tmp_path / name).mkdir()
        shards[name] = make_engine(tmp_path / name)

    def of(number: int | None) -> str:
        return "odd" if (number or 0) % 2 else "even"

    sessions = sessionmaker(
        class_=ShardedSession,
        shards=shards,
        shard_chooser=lambda _m, instance, clause=None: of(instance.id if instance is not None else 0),
        identity_chooser=lambda _m, key, **_: [of(key[0])],
        execute_chooser=lambda _: list(shards),
    )
    with sessions() as session:
        session.add_all([Brand(id=1), Brand(id=2)])
        session.add_all([Product(id=1, brand_id=1), Product(id=2, brand_id=2)])
        session.commit()
    cache = HTTPCache()
    collector = collect_changes(sessions, cache, TAGS)
    with capture_invalidations(cache) as receipts, sessions() as session:
        for number in (1, 2):
            session.get_one(Product, number).price = 5
        session.commit()
        session.delete(session.get_one(Product, 1))
        session.commit()
        with pytest.raises(UnknownRows, match="several databases"):
            session.execute(update(Product).values(brand_id=1))
    collector.stop()
    for engine in shards.values():
        engine.dispose()
    assert tags_of(receipts) == [
        {"product:1", "product:2", "brand:1", "brand:2", "products"},
        {"product:1", "brand:1", "products"},
    ]


# -- association tables ------------------------------------------------------------------------


def test_links_of_a_subclass_go_with_rows_that_are_deleted_through_the_base(tmp_path: Path) -> None:
    """A relationship that only a subclass has."""

    class Tree(DeclarativeBase):
        pass

    hung = Table("hung", Tree.metadata, Column("a", ForeignKey("a.id")), Column("b", ForeignKey("b.id")))

    class B(Tree):
        __tablename__ = "b"
        id: Mapped[int] = mapped_column(primary_key=True)

    class A(Tree):
        __tablename__ = "a"
        id: Mapped[int] = mapped_column(primary_key=True)
        kind: Mapped[str] = mapped_column(default="a")
        __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "a"}  # noqa: RUF012

    class C(A):
        __mapper_args__ = {"polymorphic_identity": "c"}  # noqa: RUF012

    from sqlalchemy.orm import relationship

    C.hung = relationship(B, secondary=hung)  # type: ignore[attr-defined]
    engine = create_engine(f"sqlite:///{tmp_path / 'tree.db'}")
    Tree.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all([B(id=1), C(id=1)])
        session.flush()
        session.execute(insert(hung).values(a=1, b=1))
        session.commit()
    tags = {B: ["b:{id}"]}
    assert purged_by(engine, lambda session: session.execute(delete(A)), tags) == {"b:1"}
    engine.dispose()


def test_subclasses_count_where_only_they_have_tags(make_store: Callable[..., Store]) -> None:
    """A row of the subclass is inserted through its base."""
    store = make_store({Bundle: ["bundle:{id}"]})
    with store.purged() as tags, store.sessions.begin() as session:
        session.execute(insert(Product), [{"id": 50, "kind": "bundle"}])
        session.execute(insert(Product).values(id=51, kind="bundle"))
    assert tags == {"bundle:50", "bundle:51"}
