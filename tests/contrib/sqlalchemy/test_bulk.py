"""Statements that change rows without loading them: the rows are looked up around them, or it is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import bindparam, delete, event, insert, select, text, update
from sqlalchemy.dialects.sqlite import insert as upsert

from fastapi_cacheinval.contrib.sqlalchemy import UnknownRows
from tests.contrib.sqlalchemy.store import Brand, Bundle, Label, Note, Product, Review, Store, labels

WIDE = {Product: "all-products", Label: ["all-labels"]}


def test_an_update_purges_the_rows_that_it_meets_before_and_after(store: Store) -> None:
    """Two products go from brand 1 to brand 2."""
    with store.purged() as tags, store.sessions.begin() as session:
        session.execute(update(Product).where(Product.brand_id == 1).values(brand_id=2))
    assert tags == {"product:1", "product:2", "brand:1", "brand:2", "products"}


def test_an_update_sees_what_the_session_has_not_flushed(store: Store) -> None:
    """The statement would flush first, and so do we."""
    with store.purged() as tags, store.sessions.begin() as session:
        session.add(Product(id=20, brand_id=1))
        session.execute(update(Product).where(Product.brand_id == 1).values(price=9))
    assert tags >= {"product:1", "product:2", "product:20"}


def test_an_update_may_take_parameters_join_and_return(store: Store) -> None:
    """Bound parameters, another table in the criteria, and RETURNING: the user's result is the user's."""
    with store.purged() as tags, store.sessions.begin() as session:
        statement = update(Product).where(Product.id == bindparam("which")).values(price=3)
        session.connection()
        session.execute(statement, {"which": 3}, execution_options={"synchronize_session": False})
    assert tags == {"product:3", "brand:2", "products"}
    with store.purged() as tags, store.sessions.begin() as session:
        statement = update(Product).where(Product.brand_id == Brand.id, Brand.id == 2).values(price=5)
        assert session.scalars(statement.returning(Product.price)).all() == [5]
    assert tags == {"product:3", "brand:2", "products"}
    with store.purged() as tags, store.sessions.begin() as session:
        inner = select(Brand.id).where(Brand.id > 1).scalar_subquery()
        assert session.execute(update(Product).where(Product.brand_id == inner).values(price=6)).rowcount == 1  # type: ignore[attr-defined]
    assert tags == {"product:3", "brand:2", "products"}


def test_an_update_by_primary_key_purges_each_row(store: Store) -> None:
    """`session.execute(update(Product), [...])`."""
    with store.purged() as tags, store.sessions.begin() as session:
        session.execute(update(Product), [{"id": 1, "brand_id": 2}, {"id": 3, "brand_id": 1}])
    assert tags == {"product:1", "product:3", "brand:1", "brand:2", "products"}


def test_an_update_that_meets_nothing_purges_nothing(store: Store) -> None:
    """No row, no tag."""
    with store.purged() as tags, store.sessions.begin() as session:
        session.execute(update(Product).where(Product.id == 99).values(price=1))
        session.execute(delete(Review))
    assert tags == set()


def test_a_subclass_is_found_through_its_base(store: Store) -> None:
    """A statement on products meets bundles, whose own tags are purged too; one on bundles meets no other product."""
    with store.sessions.begin() as session:
        session.add(Bundle(id=9, brand_id=2))
    with store.purged() as tags, store.sessions.begin() as session:
        session.execute(update(Product).where(Product.brand_id == 2).values(price=1))
    assert tags == {"product:3", "product:9", "brand:2", "products", "bundles"}
    with store.purged() as tags, store.sessions.begin() as session:
        session.execute(update(Bundle).values(price=2))
    assert tags == {"product:9", "brand:2", "products", "bundles"}


def test_the_older_query_interface_is_the_same(store: Store) -> None:
    """`query.update()` and `query.delete()`."""
    with store.purged() as tags, store.sessions.begin() as session:
        session.query(Product).filter_by(id=3).update({"price": 2})
        session.query(Label).filter_by(id=2).delete()
    assert tags == {"product:3", "brand:2", "products", "label:2"}


def test_a_delete_purges_what_goes_along(store: Store) -> None:
    """What the database deletes by `ON DELETE CASCADE`, and the other side of association rows."""
    with store.sessions.begin() as session:
        product = session.get_one(Product, 3)
        product.labels.append(session.get_one(Label, 2))
        session.add(Note(id=4, product_id=3))
    with store.purged() as tags, store.sessions.begin() as session:
        session.execute(delete(Product).where(Product.id == 3))
    assert tags == {"product:3", "brand:2", "products", "note:4", "notes:3", "label:2"}


def test_a_method_on_the_model_is_asked_around_statements_too(store: Store) -> None:
    """Before and after, for each row."""
    with store.sessions.begin() as session:
        session.add_all([Review(id=1, product_id=1, stars=1), Review(id=2, product_id=3, stars=2)])
    with store.purged() as tags, store.sessions.begin() as session:
        session.execute(update(Review).values(stars=Review.stars + 2))
    assert tags == {"stars:1", "stars:2", "stars:3", "stars:4", "reviews:1", "reviews:2"}


def test_core_statements_through_the_session_are_seen_and_text_is_not(store: Store) -> None:
    """A statement on the table of a class is as one on the class; text is the limit that the documentation names."""
    table: Any = Product.__table__
    with store.purged() as tags, store.sessions.begin() as session:
        session.execute(update(table).where(table.c.id == 3).values(price=2))
    assert tags == {"product:3", "brand:2", "products"}
    with store.purged() as tags, store.sessions.begin() as session:
        session.execute(text("UPDATE product SET price = 3"))
    assert tags == set()


def test_a_changed_primary_key_is_refused(store: Store) -> None:
    """Which rows come out of it cannot be told: a clear error, before anything is done."""
    with store.purged() as tags, store.sessions() as session:
        with pytest.raises(UnknownRows, match="UPDATE of a primary key"):
            session.execute(update(Label).values(id=Label.id + 10))
        session.rollback()
        assert session.get(Label, 1) is not None
    assert tags == set()


# -- inserts -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rows", [[{"id": 21, "brand_id": 2}], [{"id": 21, "brand_id": 2}, {"id": 22, "brand_id": 2}], [{"brand_id": 2}]]
)
def test_an_insert_purges_the_rows_that_it_makes(store: Store, rows: list[dict[str, int]]) -> None:
    """With keys as parameters, or with those that the database returns."""
    with store.purged() as tags, store.sessions.begin() as session:
        session.execute(insert(Product), rows)
        made = session.scalars(select(Product.id).where(Product.id > 3)).all()
    assert tags == {"brand:2", "products"} | {f"product:{number}" for number in made}
    assert len(made) == len(rows)


def test_an_insert_may_have_values_a_select_or_a_returning_of_its_own(store: Store) -> None:
    """What the statement returns goes to whoever asked."""
    with store.purged() as tags, store.sessions.begin() as session:
        session.execute(insert(Label).values(id=31, text="one"))
        session.execute(insert(Label).values([{"text": "two"}, {"text": "three"}]))
        assert session.scalars(insert(Label).returning(Label), [{"id": 41}]).one().id == 41
        assert session.execute(insert(Label).values(text="four").returning(Label.id, Label.text)).all() == [
            (42, "four")
        ]
        session.execute(insert(Label).from_select(["text"], select(Label.text).where(Label.id == 1)))
        made = set(session.scalars(select(Label.id).where(Label.id > 2)))
    assert tags == {f"label:{number}" for number in made}
    assert len(made) == 6


def test_an_insert_that_may_replace_needs_no_old_values_or_a_wide_tag(
    store: Store, make_store: Callable[..., Store]
) -> None:
    """An upsert of labels, tagged by key alone, is known; one of products, tagged by brand, is not."""
    with store.purged() as tags, store.sessions.begin() as session:
        session.execute(upsert(Label).values(id=1, text="new").on_conflict_do_update(["id"], set_={"text": "new"}))
    assert tags == {"label:1"}
    statement = upsert(Product).values(id=1, brand_id=2).on_conflict_do_update(["id"], set_={"brand_id": 2})
    with store.sessions() as session, pytest.raises(UnknownRows, match=r"may replace rows.*wide=\{Product"):
        session.execute(statement)
    other = make_store(wide=WIDE)
    with other.purged() as tags, other.sessions.begin() as session:
        session.execute(statement)
    assert tags == {"all-products"}


def test_a_wide_tag_stands_for_any_row(make_store: Callable[..., Store]) -> None:
    """Statements purge it and read no rows for it; what goes through the session keeps its own tags."""
    store = make_store(wide=WIDE)
    with store.purged() as tags, store.sessions.begin() as session:
        session.execute(update(Product).values(price=1))
        session.execute(insert(Label), [{"text": "a"}])
        session.execute(update(Label).values(id=Label.id + 10))
    assert tags == {"all-products", "all-labels"}
    with store.purged() as tags, store.sessions.begin() as session:
        session.get_one(Product, 3).price = 4
    assert tags == {"product:3", "brand:2", "products"}


# -- association tables ------------------------------------------------------------------------


def test_statements_on_an_association_table_purge_both_sides(store: Store) -> None:
    """An insert by its values or parameters, a delete by the rows that it meets."""
    with store.purged() as tags, store.sessions.begin() as session:
        session.execute(insert(labels).values(product_id=3, label_id=2))
        session.execute(insert(labels), [{"product_id": 1, "label_id": 1}])
    assert tags == {"product:3", "brand:2", "products", "label:2", "product:1", "brand:1", "label:1"}
    with store.purged() as tags, store.sessions.begin() as session:
        session.execute(delete(labels).where(labels.c.label_id == 2))
    assert tags == {"product:3", "brand:2", "products", "label:2"}


def test_an_insert_of_links_by_select_and_an_update_of_links_are_refused(store: Store) -> None:
    """What they name cannot be told, and nothing is done."""
    rows = select(Product.id, Label.id).where(Label.id == 1)
    with store.sessions() as session:
        with pytest.raises(UnknownRows, match="links without their keys"):
            session.execute(insert(labels).from_select(["product_id", "label_id"], rows))
        with pytest.raises(UnknownRows, match="UPDATE of links"):
            session.execute(update(labels).values(label_id=2))


# -- the older methods -------------------------------------------------------------------------


def test_the_bulk_methods_are_seen(store: Store) -> None:
    """No event tells of them: they are stood around."""
    with store.purged() as tags, store.sessions.begin() as session:
        session.bulk_insert_mappings(Label, [{"id": 51}, {"text": "x"}])
        session.bulk_update_mappings(Product, [{"id": 1, "brand_id": 2}])
    assert tags == {"label:51", "label:52", "product:1", "brand:1", "brand:2", "products"}
    with store.purged() as tags, store.sessions.begin() as session:
        product = session.get_one(Product, 3)
        session.expunge(product)
        product.brand_id = 1
        session.bulk_save_objects([product, Label(text="y")])
    assert tags == {"product:3", "brand:2", "brand:1", "products", "label:53"}


def test_the_bulk_methods_are_as_they_were_after_stop(store: Store) -> None:
    """Nothing is left of the watch."""
    store.collector.stop()
    assert "bulk_save_objects" not in vars(store.sessions.class_)
    with store.purged() as tags, store.sessions.begin() as session:
        session.bulk_insert_mappings(Label, [{"id": 51}])
    assert tags == set()


def test_statements_may_be_the_first_thing_that_a_session_does(make_store: Callable[..., Store]) -> None:
    """Before it has begun a transaction, with rows to look up and with wide tags."""
    for options in ({}, {"wide": WIDE}):
        store = make_store(**options)
        some: Any = [
            (update(Product).values(price=1), True),
            (insert(Label).values(text="a"), True),
            (delete(Note), False),
        ]
        for statement, purges in some:
            with store.purged() as tags, store.sessions() as session:
                session.execute(statement)
                session.commit()
            assert bool(tags) is purges


def test_many_rows_are_looked_up_in_parts_and_none_is_missed(store: Store) -> None:
    """A thousand rows, past what one query or a narrowed statement takes."""
    with store.sessions.begin() as session:
        session.add_all(Product(id=number, brand_id=2) for number in range(100, 1100))
    with store.purged() as tags, store.sessions.begin() as session:
        session.execute(update(Product).where(Product.id >= 100).values(brand_id=1))
    assert tags == {"brand:1", "brand:2", "products"} | {f"product:{number}" for number in range(100, 1100)}


def test_statements_that_concern_nothing_cost_nothing(make_store: Callable[..., Store]) -> None:
    """Where neither the class nor what hangs on it has tags, no row is looked up."""
    store = make_store({Label: ["label:{id}"]})
    asked: list[str] = []
    event.listen(store.engine, "before_cursor_execute", lambda *arguments: asked.append(arguments[2].split()[0]))
    with store.sessions.begin() as session:
        session.execute(delete(Note))
        session.execute(update(Product).values(price=1))
    assert asked == ["DELETE", "UPDATE"]


def test_a_core_update_with_several_parameters_is_looked_up_by_its_criteria(store: Store) -> None:
    """Parameters of a statement on a table are not rows by key."""
    table: Any = Product.__table__
    with store.purged() as tags, store.sessions.begin() as session:
        statement = update(table).where(table.c.id == bindparam("which")).values(price=bindparam("new"))
        session.execute(statement, [{"which": 1, "new": 4}, {"which": 3, "new": 5}])
        session.execute(update(table).where(table.c.id == 2).values(price=bindparam("new")), [{"new": 4}, {"new": 5}])
    assert tags == {"product:1", "product:2", "product:3", "brand:1", "brand:2", "products"}
