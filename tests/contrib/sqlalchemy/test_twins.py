"""Random statements on two databases alike, one of them watched: the same rows, the same results, and every tag."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, bindparam, create_engine, delete, event, func, insert, select, update
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.orm import Session, sessionmaker, with_loader_criteria
from sqlalchemy.pool import StaticPool

from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.contrib.sqlalchemy import UnknownRows, collect_changes
from fastapi_cacheinval.testing import capture_invalidations
from tests.contrib.sqlalchemy.store import TAGS, Base, Brand, Bundle, Label, Note, Product, labels

TABLE: Any = Product.__table__
TABLES: tuple[Any, ...] = (TABLE, Label.__table__, Note.__table__, Brand.__table__, labels)
WIDE = {Product: "wide-products", Label: "wide-labels", Note: "wide-notes", Brand: "wide-brands"}

# -- statements --------------------------------------------------------------------------------

number = st.integers(1, 9)
sync = st.sampled_from(["auto", "evaluate", "fetch", False])
Condition = Callable[[], Any]


def _by_chance() -> Any:
    return Product.id.in_(select(Product.id).order_by(func.random()).limit(2))


@st.composite
def conditions(draw: st.DrawFn) -> Any:
    """Of the row, of other rows, of other tables, in an order, and by chance."""
    one, two = draw(number), draw(number)
    return draw(
        st.sampled_from(
            [
                Product.id == one,
                Product.brand_id == one % 3 + 1,
                Product.price < two,
                Product.id.in_([one, two]),
                (Product.brand_id == one % 3 + 1) & (Product.price >= two),
                Product.id.in_(select(Note.product_id).where(Note.id < one)),
                Product.id.in_(select(Product.id).order_by(Product.price, Product.id).limit(one % 3)),
                Product.brand_id == select(func.min(Brand.id)).where(Brand.id >= one % 3).scalar_subquery(),
                select(Note.id).where(Note.product_id == Product.id).exists(),
                func.coalesce(Product.brand_id, 0) == two % 3,
                Product.kind == "bundle",
                Product.id > 0,
                _by_chance(),
            ]
        )
    )


@st.composite
def updates(draw: st.DrawFn) -> tuple[Any, Any, bool]:
    """By class or by table, of one or several values, with and without RETURNING."""
    where, value = draw(conditions()), draw(number)
    values: Any = draw(
        st.sampled_from(
            [{"price": value}, {"brand_id": value % 3 + 1}, {"price": Product.price + 1, "brand_id": value % 3 + 1}]
        )
    )
    target: Any = draw(st.sampled_from([Product, Product, Bundle, TABLE]))
    statement = update(target).where(where).values(values)
    back = draw(st.sampled_from(["", "", "column", "entity", "key"]))
    if back:
        columns: Any = TABLE.c if target is TABLE else target
        entity = [TABLE] if target is TABLE else [target]
        returned = {"column": [columns.price], "entity": entity, "key": [columns.id, columns.brand_id]}
        statement = statement.returning(*returned[back])
    elif target is not TABLE:
        statement = statement.execution_options(synchronize_session=draw(st.sampled_from(["auto", "fetch", False])))
    if draw(st.booleans()) and target is Product:
        statement = statement.options(with_loader_criteria(Product, Product.id != value))
    return statement, None, "random" in str(where)


@st.composite
def deletes(draw: st.DrawFn) -> tuple[Any, Any, bool]:
    """Of what has notes and labels, and of what has nothing."""
    kind, one = draw(st.sampled_from(["product", "note", "label", "links", "returning", "some notes"])), draw(number)
    if kind in ("product", "returning"):
        where = draw(conditions())
        statement = delete(Product).where(where)
        return statement.returning(Product.price) if kind == "returning" else statement, None, "random" in str(where)
    if kind == "some notes":
        where = Note.id.in_(select(Note.id).order_by(func.random()).limit(2))
        return delete(Note).where(where), None, True
    cases: dict[str, Any] = {
        "note": delete(Note).where(Note.product_id == one),
        "label": delete(Label).where(Label.id == one).returning(Label.text),
        "links": delete(labels).where(labels.c.product_id == one),
    }
    return cases[kind], None, False


@st.composite
def inserts(draw: st.DrawFn) -> tuple[Any, Any, bool]:
    """With keys, without them, several, from a query, and over rows that are there."""
    one, two = draw(number), draw(number)
    made: list[tuple[Any, Any]] = [
        (insert(Product).values(brand_id=one % 3 + 1), None),
        (insert(Product), [{"brand_id": one % 3 + 1}, {"brand_id": None}]),
        (insert(Product), [{"id": 10 + one, "kind": "bundle"}]),
        (insert(Product).values([{"price": one}, {"price": two}]), None),
        (insert(Note).from_select(["product_id"], select(Product.id).where(Product.id < one)), None),
        (insert(Label).returning(Label), [{"text": "a"}, {"text": "b"}]),
        (insert(Label.__table__), [{"text": "a"}, {"text": "b"}]),  # type: ignore[arg-type]
        (insert(labels).values(product_id=one, label_id=two % 3 + 1), None),
        (upsert(Product).values(id=one, price=two).on_conflict_do_update(["id"], set_={"price": two}), None),
        (upsert(Product).values(id=one, brand_id=1).on_conflict_do_update(["id"], set_={"brand_id": 1}), None),
        (upsert(Label).values(id=one).on_conflict_do_nothing(), None),
        (update(Product), [{"id": one, "price": two}]),
        (update(Product), [{"id": one, "brand_id": two % 3 + 1}, {"id": two, "price": 0}]),
        (update(TABLE).where(TABLE.c.id == bindparam("which")), [{"which": one, "brand_id": 1}, {"which": two, "brand_id": 2}]),
        (select(Product).from_statement(update(Product).where(Product.id < one).values(price=two).returning(Product)), None),
        (select(select(update(Product).values(price=1).returning(Product.id).cte().c.id).subquery()), None),
    ]  # fmt: skip
    statement, parameters = draw(st.sampled_from(made))
    return statement, parameters, False


# -- twins -------------------------------------------------------------------------------------


def _engine() -> Engine:
    engine = create_engine("sqlite://", poolclass=StaticPool)
    event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA foreign_keys=ON"))
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all([*(Brand(id=each) for each in (1, 2, 3)), *(Label(id=each) for each in (1, 2, 3))])
        session.flush()
        session.add_all(Product(id=each, brand_id=each % 3 + 1, price=each) for each in range(1, 6))
        session.add(Bundle(id=6, brand_id=1, price=6))
        session.flush()
        session.add_all(Note(id=each, product_id=each % 4 + 1) for each in range(1, 6))
        session.execute(insert(labels), [{"product_id": 1, "label_id": 1}, {"product_id": 2, "label_id": 1}])
        session.commit()
    return engine


Rows = dict[str, set[tuple[Any, ...]]]


def _rows(engine: Engine) -> Rows:
    with engine.connect() as connection:
        return {table.name: {tuple(row) for row in connection.execute(select(table))} for table in TABLES}


def _copy(source: Engine, into: Engine) -> None:
    with source.connect() as there, into.begin() as here:
        here.exec_driver_sql("PRAGMA defer_foreign_keys=ON")
        for table in reversed(TABLES):
            here.execute(delete(table))
        for table in (TABLES[3], *TABLES[:3], TABLES[4]):
            rows = [dict(row._mapping) for row in there.execute(select(table))]
            if rows:
                here.execute(insert(table), rows)


def _tags(rows: Rows, table: str, row: tuple[Any, ...]) -> set[str]:
    """The tags of a row, by hand."""
    match table:
        case "product":
            found = {f"product:{row[0]}", "products"} | ({f"brand:{row[1]}"} if row[1] is not None else set())
            return found | ({"bundles"} if row[3] == "bundle" else set())
        case "note":
            return {f"note:{row[0]}", f"notes:{row[1]}"}
        case "product_label":
            sides = {each for each in rows["product"] if each[0] == row[0]}
            return {f"label:{row[1]}"}.union(*(_tags(rows, "product", each) for each in sides))
        case _:
            return {f"{table}:{row[0]}"}


_WIDE_OF = {"product": "wide-products", "label": "wide-labels", "note": "wide-notes", "brand": "wide-brands"}


def _missed(before: Rows, after: Rows, purged: set[str]) -> set[str]:
    """The tags of changed rows that neither are purged themselves nor have a wide one that is."""
    missed: set[str] = set()
    for table in before:
        if _WIDE_OF.get(table) in purged:
            continue
        for rows, changed in ((before, before[table] - after[table]), (after, after[table] - before[table])):
            for row in changed:
                missed |= _tags(rows, table, row) - purged
    if {"wide-products", "wide-labels"} & purged:
        missed -= {tag for tag in missed if tag.startswith(("label:", "product:", "brand:", "bundles"))}
    return missed


def _face(found: Any) -> Any:
    """What an app sees of a result."""
    count = getattr(getattr(found, "raw", found), "rowcount", None)
    try:
        rows = sorted(repr([_plain(value) for value in row]) for row in found)
    except Exception as error:  # noqa: BLE001
        rows = [type(error).__name__]
    return type(found).__name__, count, rows


def _plain(value: Any) -> Any:
    if isinstance(value, Base):
        return type(value).__name__, [getattr(value, each.key) for each in type(value).__mapper__.column_attrs]
    return value


@contextmanager
def twins(wide: Any) -> Iterator[tuple[Engine, Engine, HTTPCache, sessionmaker[Session]]]:
    watched, other, cache = _engine(), _engine(), HTTPCache()
    sessions = sessionmaker(watched)
    collector = collect_changes(sessions, cache, TAGS, wide=wide)
    try:
        yield watched, other, cache, sessions
    finally:
        collector.stop()
        watched.dispose()
        other.dispose()


def _run(session: Session, statement: Any, parameters: Any, *, remember: bool) -> Any:
    if remember:
        known = list(session.scalars(select(Product)))
    try:
        seen = _face(session.execute(statement, parameters))
    except UnknownRows:
        session.rollback()
        return UnknownRows
    except Exception as error:  # noqa: BLE001
        session.rollback()
        return type(error).__name__
    memory = (
        [{k: v for k, v in vars(each).items() if k[0] != "_"} for each in known if each in session] if remember else []
    )
    session.commit()
    return seen, sorted(map(repr, memory))


steps = st.lists(st.tuples(st.one_of(updates(), deletes(), inserts()), st.booleans()), min_size=1, max_size=4)


@pytest.mark.parametrize("wide", [None, WIDE], ids=["narrow", "wide"])
@settings(max_examples=60, deadline=None)
@given(steps=steps)
def test_a_watched_database_has_the_rows_of_its_twin_and_every_change_is_purged(
    wide: Any, steps: list[tuple[tuple[Any, Any, bool], bool]]
) -> None:
    """A few statements in a row; what is refused has changed nothing, and is not run on the other."""
    with twins(wide) as (watched, other, cache, sessions):
        for (statement, parameters, chance), remember in steps:
            before = _rows(watched)
            with capture_invalidations(cache) as receipts, sessions() as session:
                seen = _run(session, statement, parameters, remember=remember)
            after = _rows(watched)
            if seen is UnknownRows:
                assert before == after
                assert receipts == []
                continue
            purged = {tag for receipt in receipts for tag in receipt.tags}
            assert not any(receipt.everything for receipt in receipts)
            assert not _missed(before, after, purged)
            with Session(other) as session:
                alike = _run(session, statement, parameters, remember=remember)
            if chance:
                assert seen if isinstance(alike, str) else seen[0][:2] == alike[0][:2]
                _copy(watched, other)
            else:
                assert seen == alike
            assert after == _rows(other)
