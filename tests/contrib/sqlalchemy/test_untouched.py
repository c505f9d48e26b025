"""A watch never alters a write: the app's statement changes the same rows, and its result is the same."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import (
    Delete,
    Engine,
    Update,
    bindparam,
    create_engine,
    delete,
    event,
    func,
    insert,
    literal_column,
    select,
    text,
    update,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    load_only,
    mapped_column,
    selectinload,
    sessionmaker,
)
from sqlalchemy.pool import StaticPool

from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.contrib.sqlalchemy import UnknownRows, collect_changes
from fastapi_cacheinval.testing import capture_invalidations
from tests.contrib.sqlalchemy.store import TAGS, Base, Brand, Label, Note, Product, Store, make_engine, tags_of

BY_BRAND = {Product: ["product:{id}", "brand:{brand_id}"]}
BY_KEY = {Product: ["product:{id}"], Label: ["label:{id}"]}


def rows(engine: Engine, model: type = Product) -> list[Any]:
    """All rows of a table, outside any watch."""
    table: Any = model.__table__  # type: ignore[attr-defined]
    with engine.connect() as connection:
        return list(connection.execute(select(table).order_by(*table.primary_key)))


# -- schemas -----------------------------------------------------------------------------------


@pytest.fixture
def tenants(tmp_path: Path) -> Iterator[Engine]:
    """One database in which `acme` is a schema of its own; the schema without a name has other rows."""
    engine = make_engine(tmp_path)
    other = tmp_path / "acme.db"
    event.listen(engine, "connect", lambda connection, _: connection.execute(f"ATTACH DATABASE '{other}' AS acme"))
    engine.dispose()
    acme = engine.execution_options(schema_translate_map={None: "acme"})
    Base.metadata.create_all(acme)
    with Session(engine) as session, Session(acme) as there:
        session.add(Product(id=1, brand_id=None))
        there.add_all([Brand(id=7), Brand(id=8), Product(id=5, brand_id=7), Label(id=3)])
        session.commit()
        there.commit()
    yield engine
    engine.dispose()


IN_ACME: dict[str, Any] = {"schema_translate_map": {None: "acme"}}


@pytest.mark.parametrize("where", ["statement", "call", "connection", "engine"])
@pytest.mark.parametrize("kind", ["update", "delete", "core", "by key", "insert", "insert many", "query", "flush"])
def test_a_map_of_schemas_holds_for_what_is_looked_up(tenants: Engine, where: str, kind: str) -> None:
    """The rows of the schema that the statement means are changed, and their tags are purged."""
    cache = HTTPCache()
    sessions = sessionmaker(tenants.execution_options(**IN_ACME) if where == "engine" else tenants)
    collector = collect_changes(sessions, cache, TAGS)
    table: Any = Product.__table__
    statements: dict[str, Any] = {
        "update": update(Product).where(Product.brand_id == 7).values(brand_id=8),
        "delete": delete(Product).where(Product.brand_id == 7),
        "core": update(table).where(table.c.id == 5).values(brand_id=8),
        "by key": update(Product),
        "insert": insert(Product).values(brand_id=8),
        "insert many": insert(Product),
    }
    parameters: dict[str, Any] = {
        "by key": [{"id": 5, "brand_id": 8}],
        "insert many": [{"brand_id": 8}, {"id": 90, "brand_id": 8}],
    }
    options = IN_ACME if where == "call" else {}
    if kind in ("query", "flush") and where in ("call", "statement"):
        where = "connection"
    if kind in parameters and where in ("call", "statement"):
        # SQLAlchemy itself does not hear of a map in its bulk statements.
        where, options = "connection", {}
    with capture_invalidations(cache) as receipts, sessions() as session:
        if where == "connection":
            session.connection(execution_options=IN_ACME)
        if kind == "query":
            assert session.query(Product).filter_by(id=5).update({"brand_id": 8}) == 1
        elif kind == "flush":
            session.get_one(Product, 5).brand_id = 8
        else:
            statement = statements[kind]
            if where == "statement":
                statement = statement.execution_options(**IN_ACME)
            session.execute(statement, parameters.get(kind), execution_options=options)
        session.commit()
    collector.stop()
    there = [row[:2] for row in rows(tenants.execution_options(**IN_ACME))]
    if kind.startswith("insert"):
        assert len(there) > 1
        assert tags_of(receipts)[0] >= {f"product:{number}" for number, _ in there if number != 5} | {"brand:8"}
    else:
        assert there == ([] if kind == "delete" else [(5, 8)])
        assert tags_of(receipts)[0] >= {"product:5", "brand:7"} | (set() if kind == "delete" else {"brand:8"})
    assert [row[:2] for row in rows(tenants)] == [(1, None)]


def test_a_query_with_a_map_of_schemas_deletes_and_purges(tenants: Engine) -> None:
    """`query.execution_options(...).delete()` carries its own options."""
    cache, sessions = HTTPCache(), sessionmaker(tenants)
    collector = collect_changes(sessions, cache, TAGS)
    with capture_invalidations(cache) as receipts, sessions.begin() as session:
        assert session.query(Label).execution_options(**IN_ACME).filter(Label.id == 3).delete() == 1
    collector.stop()
    assert tags_of(receipts) == [{"label:3"}]


# -- conditions that are never the same twice --------------------------------------------------


def some(model: Any, count: int) -> Any:
    """The keys of some rows, picked by chance."""
    return select(model.id).order_by(func.random()).limit(count)


def test_a_delete_of_rows_picked_by_chance_deletes_as_many_and_purges_those(make_store: Callable[..., Store]) -> None:
    """The database says which: by `RETURNING`, which the app does not see."""
    store = make_store({Label: ["label:{id}"]})
    with store.sessions.begin() as session:
        session.add_all(Label(id=number, text=str(number)) for number in range(10, 40))
    store.collector.stop()
    collector = collect_changes(store.sessions, store.cache, {Label: ["label:{id}", "text:{text}"]})
    before = {row.id for row in rows(store.engine, Label)}
    with store.purged() as tags, store.sessions.begin() as session:
        result: Any = session.execute(delete(Label).where(Label.id.in_(some(Label, 5))))
        assert result.rowcount == 5
    collector.stop()
    gone = before - {row.id for row in rows(store.engine, Label)}
    assert len(gone) == 5
    assert tags == {f"label:{number}" for number in gone} | {f"text:{number if number > 2 else ''}" for number in gone}


def test_an_update_of_rows_picked_by_chance_is_known_if_it_leaves_their_tags(make_store: Callable[..., Store]) -> None:
    """What moves them is refused before it is run: nobody has read where they were."""
    store = make_store(BY_BRAND)
    with store.sessions.begin() as session:
        session.add_all(Product(id=number, brand_id=1 + number % 2) for number in range(10, 40))
    with store.purged() as tags, store.sessions.begin() as session:
        session.execute(update(Product).where(Product.id.in_(some(Product, 5))).values(price=77))
    changed = {row.id for row in rows(store.engine) if row.price == 77}
    assert len(changed) == 5
    assert {tag for tag in tags if tag.startswith("product:")} == {f"product:{number}" for number in changed}
    with store.purged() as tags, store.sessions() as session:
        with pytest.raises(UnknownRows, match="picks rows by chance"):
            session.execute(update(Product).where(Product.id.in_(some(Product, 5))).values(brand_id=2, price=78))
        session.commit()
    assert tags == set()
    assert not [row for row in rows(store.engine) if row.price == 78]


def test_what_goes_along_with_rows_picked_by_chance_is_refused_or_wide(make_store: Callable[..., Store]) -> None:
    """The notes of a product go with it, and which those are only a look at the product tells."""
    statement = delete(Product).where(Product.id.in_(some(Product, 1)))
    store = make_store()
    with store.sessions() as session, pytest.raises(UnknownRows):
        session.execute(statement)
    assert len(rows(store.engine)) == 3
    every = make_store(wide={Product: "all", Note: "all-notes", Label: "all-labels", Brand: "all-brands"})
    with every.purged() as tags, every.sessions.begin() as session:
        assert session.execute(statement).rowcount == 1  # type: ignore[attr-defined]
    assert tags == {"all", "all-notes", "all-labels"}


# -- several databases -------------------------------------------------------------------------


class Routing(Session):
    """The recipe of SQLAlchemy's documentation: writes go to the leader, reads to a follower."""

    engines: dict[str, Engine]

    def get_bind(self, mapper: Any = None, *, clause: Any = None, **_: Any) -> Engine:
        if self._flushing or isinstance(clause, Update | Delete):
            return self.engines["leader"]
        return self.engines[random.choice(["follower1", "follower2"])]


@pytest.fixture
def routed(tmp_path: Path) -> Iterator[tuple[sessionmaker[Routing], Engine]]:
    """A leader with three products, and followers that lag: one has one of them, the other none."""
    Routing.engines = {}
    for name, count in (("leader", 3), ("follower1", 1), ("follower2", 0)):
        (tmp_path / name).mkdir()
        Routing.engines[name] = make_engine(tmp_path / name)
        with Session(Routing.engines[name]) as session:
            session.add_all([Brand(id=1), Brand(id=2), Label(id=1)])
            session.add_all(Product(id=number, brand_id=1) for number in range(1, count + 1))
            session.commit()
    yield sessionmaker(class_=Routing), Routing.engines["leader"]
    for engine in Routing.engines.values():
        engine.dispose()


@pytest.mark.parametrize("kind", ["update", "delete", "core", "by criteria and key", "flush", "save", "mappings"])
def test_a_session_that_splits_readers_from_writers_changes_every_row(
    routed: tuple[sessionmaker[Routing], Engine], kind: str
) -> None:
    """Rows are looked up where they are written, and not on a follower that lags."""
    sessions, leader = routed
    cache, table = HTTPCache(), Product.__table__
    collector = collect_changes(sessions, cache, BY_BRAND)
    statements: dict[str, Any] = {
        "update": update(Product).where(Product.brand_id == 1).values(brand_id=2),
        "delete": delete(Product).where(Product.brand_id == 1),
        "core": update(table).where(table.c.brand_id == 1).values(brand_id=2),  # type: ignore[arg-type]
        "by criteria and key": update(Product).where(Product.id.in_([1, 2, 3])).values(brand_id=Product.brand_id + 1),
    }
    with capture_invalidations(cache) as receipts, sessions() as session:
        if kind in statements:
            assert session.execute(statements[kind]).rowcount == 3  # type: ignore[attr-defined]
        elif kind == "mappings":
            session.bulk_update_mappings(Product, [{"id": number, "brand_id": 2} for number in (1, 2, 3)])  # type: ignore[arg-type]
        else:
            with Session(leader) as at_leader:
                products = list(at_leader.scalars(select(Product)))
                at_leader.expunge_all()
            for product in products:
                product.brand_id = 2
            if kind == "flush":
                session.add_all(products)
            else:
                session.bulk_save_objects(products)
        session.commit()
    collector.stop()
    expected = [] if kind == "delete" else [(1, 2), (2, 2), (3, 2)]
    assert [row[:2] for row in rows(leader)] == expected
    every = {"product:1", "product:2", "product:3", "brand:1"} | ({"brand:2"} if expected else set())
    assert set().union(*tags_of(receipts)) == every


# -- results -----------------------------------------------------------------------------------

TABLE: Any = Product.__table__
ALIKE: dict[str, Callable[[Session], Any]] = {
    "update": lambda s: s.execute(update(Product).where(Product.id < 3).values(price=4)),
    "update, moved": lambda s: s.execute(update(Product).where(Product.id < 3).values(brand_id=2)),
    "update, evaluated": lambda s: s.execute(
        update(Product).where(Product.id < 3).values(price=4), execution_options={"synchronize_session": "evaluate"}
    ),
    "update, fetched": lambda s: s.execute(
        update(Product).where(Product.id < 3).values(price=4), execution_options={"synchronize_session": "fetch"}
    ),
    "update, not synchronised": lambda s: s.execute(
        update(Product).where(Product.id < 3).values(price=4), execution_options={"synchronize_session": False}
    ),
    "update, nothing": lambda s: s.execute(update(Product).where(Product.id > 90).values(price=4)),
    "update returning entities": lambda s: s.execute(update(Product).values(price=4).returning(Product)),
    "update returning a column": lambda s: s.execute(update(Product).values(price=4).returning(Product.price)),
    "update returning moved": lambda s: s.execute(
        update(Product).values(brand_id=2).returning(Product.price, Product.brand_id)
    ),
    "core update": lambda s: s.execute(update(TABLE).where(TABLE.c.id < 3).values(price=4)),
    "core update returning": lambda s: s.execute(update(TABLE).values(price=4).returning(TABLE.c.price)),
    "core update returning all": lambda s: s.execute(update(TABLE).values(price=4).returning(TABLE)),
    "core update by parameters": lambda s: s.execute(
        update(TABLE).where(TABLE.c.id == bindparam("which")), [{"which": 1, "price": 4}, {"which": 2, "price": 5}]
    ),
    "update by key": lambda s: s.execute(update(Product), [{"id": 1, "price": 4}, {"id": 2, "brand_id": 2}]),
    "update returning a label": lambda s: s.execute(
        update(Product).values(price=4).returning(Product.kind.label("id"), Product.kind.label("id_1"))
    ),
    "update returning twice": lambda s: s.execute(
        update(Product).values(price=4).returning(Product.price, Product.price)
    ),
    "core update returning a label": lambda s: s.execute(
        update(TABLE).values(price=4).returning(TABLE.c.kind.label("id"))
    ),
    "core update returning twice": lambda s: s.execute(
        update(TABLE).where(TABLE.c.id == 1).values(brand_id=2).returning(TABLE.c.price, TABLE.c.price)
    ),
    "core update returning text": lambda s: s.execute(
        update(TABLE).where(TABLE.c.id == 1).values(brand_id=2).returning(text("*"))
    ),
    "core delete returning text": lambda s: s.execute(
        delete(TABLE).where(TABLE.c.id == 1).returning(literal_column("*"))
    ),
    "update with loader options": lambda s: s.execute(
        update(Product)
        .values(brand_id=2)
        .returning(Product)
        .options(selectinload(Product.notes), load_only(Product.price))
    ),
    "delete": lambda s: s.execute(delete(Product).where(Product.id == 2)),
    "delete labels": lambda s: s.execute(delete(Label)),
    "delete returning": lambda s: s.execute(delete(Label).returning(Label.text)),
    "core delete returning": lambda s: s.execute(delete(Label.__table__).returning(Label.__table__.c.text)),  # type: ignore[arg-type]
    "insert values": lambda s: s.execute(insert(Label).values(text="a")),
    "insert several": lambda s: s.execute(insert(Label).values([{"text": "a"}, {"text": "b"}])),
    "insert many": lambda s: s.execute(insert(Label), [{"text": "a"}, {"text": "b"}]),
    "insert one parameter": lambda s: s.execute(insert(Label), {"text": "a"}),
    "insert returning": lambda s: s.execute(insert(Label).returning(Label), [{"text": "a"}, {"text": "b"}]),
    "insert from select": lambda s: s.execute(insert(Label).from_select(["text"], select(Label.text))),
    "core insert": lambda s: s.execute(insert(Label.__table__).values(text="a")),  # type: ignore[arg-type]
    "core insert many": lambda s: s.execute(insert(Label.__table__), [{"text": "a"}, {"text": "b"}]),  # type: ignore[arg-type]
    "core insert from select": lambda s: s.execute(
        insert(Label.__table__).from_select(["text"], select(Label.text))  # type: ignore[arg-type]
    ),
    "scalar": lambda s: s.scalar(update(Product).where(Product.id == 1).values(price=4).returning(Product.price)),
    "scalars": lambda s: s.scalars(update(Product).values(price=4).returning(Product)).all(),
    "query.update": lambda s: s.query(Product).filter(Product.id < 3).update({"price": 4}),
    "query.delete": lambda s: s.query(Label).delete(),
}


def face(found: Any) -> Any:
    """What an app may see of a result, objects as their values."""

    def plain(value: Any) -> Any:
        if isinstance(value, Product | Label):
            return type(value).__name__, {c.key: getattr(value, c.key) for c in type(value).__mapper__.column_attrs}
        if isinstance(value, list | tuple):
            return [plain(each) for each in value]
        return value

    if not hasattr(found, "fetchall"):
        return plain(found)
    raw = getattr(found, "raw", found)
    seen: dict[str, Any] = {"type": type(found).__name__, "raw": type(raw).__name__, "closed": found.closed}
    names = ("rowcount", "returns_rows", "returned_defaults_rows", "inserted_primary_key_rows", "is_insert")
    for name in names:
        try:
            seen[name] = plain(getattr(raw, name, "none"))
        except Exception as error:  # noqa: BLE001
            seen[name] = type(error).__name__
    try:
        seen["keys"] = list(found.keys())
        seen["rows"] = plain([tuple(row) for row in found])
    except Exception as error:  # noqa: BLE001
        seen["rows"] = type(error).__name__
    seen["closed then"] = found.closed
    return seen


@pytest.mark.parametrize("kind", list(ALIKE))
@pytest.mark.parametrize("tags", [TAGS, BY_BRAND, BY_KEY], ids=["all", "by brand", "by key"])
def test_a_result_is_what_it_is_without_a_watch(make_store: Callable[..., Store], kind: str, tags: Any) -> None:
    """The same type, the same count, the same rows or none; objects in the session are synchronised alike."""
    seen: list[Any] = []
    for watched in (False, True):
        store = make_store(tags)
        if not watched:
            store.collector.stop()
        with store.sessions() as session:
            known = list(session.scalars(select(Product).order_by(Product.id)))
            found = ALIKE[kind](session)
            state = [(p.id, dict(sorted(vars(p).items(), key=str)).keys()) for p in known if p in session]
            result = face(found)
            in_memory = [(p in session, [(k, v) for k, v in vars(p).items() if k[0] != "_"]) for p in known]
            session.commit()
        seen.append((result, state, in_memory, rows(store.engine), rows(store.engine, Label)))
    assert seen[0] == seen[1]


def test_parameters_and_options_are_the_apps_own(store: Store) -> None:
    """Lists of parameters are not written to, and the statement that reaches the driver has the app's options."""
    given = [{"text": "a"}, {"text": "b"}]
    options: list[Any] = []
    event.listen(
        store.engine, "before_execute", lambda _c, _s, _m, _p, options_: options.append(dict(options_)), retval=False
    )
    with store.sessions.begin() as session:
        session.execute(insert(Label), given)
        session.execute(update(Product).where(Product.id == 1).values(price=1), execution_options={"mine": 1})
    assert given == [{"text": "a"}, {"text": "b"}]
    assert [each for each in options if each.get("mine") == 1]


def test_a_statement_that_fails_fails_as_it_does_without_a_watch(store: Store) -> None:
    """The driver's error goes to the app, which may go on."""
    with store.purged() as tags, store.sessions() as session:
        with pytest.raises(Exception, match="UNIQUE"):
            session.execute(insert(Label).values(id=1))
        session.execute(insert(Label).values(id=50))
        session.commit()
    assert tags == {"label:50"}


def test_an_executemany_that_fails_half_way_and_is_committed_purges_everything(store: Store) -> None:
    """What it had written before stands with the commit, and nobody knows what that is."""
    table: Any = Label.__table__
    with capture_invalidations(store.cache) as receipts, store.sessions() as session:
        with pytest.raises(Exception, match="UNIQUE"):
            session.execute(insert(table), [{"id": 60}, {"id": 1}])
        session.commit()
    assert (60, "") in rows(store.engine, Label)
    assert [receipt for receipt in receipts if receipt.everything]


class Unreturned(DeclarativeBase):
    """Tables that are set to get no `RETURNING` that the app has not written."""


class Item(Unreturned):
    __tablename__ = "item"
    __table_args__ = {"implicit_returning": False}  # noqa: RUF012
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


@pytest.mark.parametrize(
    "statement",
    [
        update(Item).where(Item.id == 1).values(name="b").returning(Item.name),
        update(Item).where(Item.name == "a").values(name="b").returning(Item.name),
        delete(Item).where(Item.id == 1).returning(Item.name),
        delete(Item).where(Item.name == "a").returning(text("*")),
        select(Item).from_statement(update(Item).where(Item.name == "a").values(name="b").returning(Item)),
    ],
)
def test_the_apps_own_returning_may_lack_the_key(statement: Any) -> None:
    """Where nothing is added to it, the rows are looked up, and what it returns is the same."""
    seen: list[Any] = []
    for watched in (True, False):
        engine, cache = create_engine("sqlite://", poolclass=StaticPool), HTTPCache()
        Unreturned.metadata.create_all(engine)
        sessions = sessionmaker(engine)
        with sessions.begin() as session:
            session.add_all([Item(id=1, name="a"), Item(id=2, name="c")])
        collector = collect_changes(sessions, cache, {Item: ["item:{id}", "name:{name}"]})
        if not watched:
            collector.stop()
        with capture_invalidations(cache) as receipts, sessions() as session:
            seen.append([[getattr(one, "name", one) for one in row] for row in session.execute(statement)])
            session.commit()
        if watched:
            collector.stop()
            assert set(tags_of(receipts)[0]) >= {"item:1", "name:a"}
            assert not receipts[0].everything
        engine.dispose()
    assert seen[0] == seen[1]


@pytest.mark.parametrize("isolation", ["SERIALIZABLE", "AUTOCOMMIT"])
@pytest.mark.parametrize("kind", ["insert", "update", "save"])
def test_an_older_bulk_method_that_fails_raises_the_error_of_the_database(
    make_store: Callable[..., Store], kind: str, isolation: Any
) -> None:
    """The app hears what it hears without a watch; what had been written in autocommit purges everything."""
    store = make_store()
    sessions = sessionmaker(store.engine.execution_options(isolation_level=isolation), class_=store.sessions.class_)
    calls: dict[str, Callable[[Session], None]] = {
        "insert": lambda s: s.bulk_insert_mappings(Label, [{"id": 50}, {"id": 1}]),  # type: ignore[arg-type]
        "update": lambda s: s.bulk_update_mappings(Product, [{"id": 1, "price": 1}, {"id": 2, "brand_id": 99}]),  # type: ignore[arg-type]
        "save": lambda s: s.bulk_save_objects([Label(id=50), Label(id=1)]),
    }
    with capture_invalidations(store.cache) as receipts, sessions() as session:
        with pytest.raises(IntegrityError):
            calls[kind](session)
        session.rollback()
        assert session.execute(update(Product).where(Product.id == 3).values(price=1)).rowcount == 1  # type: ignore[attr-defined]
        session.commit()
    assert any(receipt.everything for receipt in receipts) == (isolation == "AUTOCOMMIT")


@pytest.mark.parametrize("target", [Label, Label.__table__])
def test_a_statement_that_is_run_again_is_as_well_known(make_store: Callable[..., Store], target: Any) -> None:
    """SQLAlchemy compiles it once: what is hidden from the app is found in the result each time."""
    store = make_store({Label: ["label:{id}", "text:{text}"]})
    columns: Any = target if target is Label else target.c
    for value in ("a", "b", "c"):
        with capture_invalidations(store.cache) as receipts, store.sessions.begin() as session:
            session.execute(update(target).where(columns.id == 1).values(text=value).returning(columns.text))
        assert "label:1" in receipts[0].tags
        assert not receipts[0].everything
