"""What a flush writes becomes tags: of the rows as they were, and as they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Column, ForeignKey, String, Table, TypeDecorator, delete, insert, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship, sessionmaker
from sqlalchemy.orm.attributes import set_committed_value

from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.contrib.sqlalchemy import collect_changes
from fastapi_cacheinval.testing import capture_invalidations
from tests.contrib.sqlalchemy.store import Brand, Bundle, Label, Note, Product, Review, Store, obedient, tags_of


def test_a_new_row_is_tagged_with_the_key_that_the_database_gave_it(store: Store) -> None:
    """The tags of an insert are known only after it, and are purged with one purge after the commit."""
    with capture_invalidations(store.cache) as receipts, store.sessions() as session:
        session.add(Product(brand_id=2))
        session.commit()
    assert tags_of(receipts) == [{"product:4", "brand:2", "products"}]


def test_a_row_that_moves_purges_where_it_was_and_where_it_is(store: Store) -> None:
    """A product that goes from brand 1 to brand 2 changes the pages of both."""
    with store.purged() as tags, store.sessions.begin() as session:
        session.get_one(Product, 1).brand_id = 2
    assert tags == {"product:1", "brand:1", "brand:2", "products"}


def test_the_old_value_is_known_where_the_object_never_had_it(store: Store) -> None:
    """An expired attribute that is set without being loaded has no history: the row is asked."""
    with store.purged() as tags, store.sessions.begin() as session:
        product = session.get_one(Product, 1)
        session.expire(product)
        product.brand_id = 2
    assert tags >= {"brand:1", "brand:2"}


def test_what_the_row_is_counts_and_not_what_the_object_remembers(store: Store) -> None:
    """Another transaction has moved the row since it was loaded: its page, the third one, is purged too."""
    with store.purged() as tags, store.sessions() as session:
        product = session.get_one(Product, 3)
        session.commit()
        with store.engine.begin() as elsewhere:
            elsewhere.execute(text("UPDATE product SET brand_id = 1 WHERE id = 3"))
        # As a session remembers that has not expired it.
        set_committed_value(product, "brand_id", 2)
        product.price = 7
        session.commit()
    assert tags >= {"product:3", "brand:1"}


def test_a_deleted_row_purges_what_it_was(store: Store) -> None:
    """Its tags are read before it goes."""
    with store.purged() as tags, store.sessions.begin() as session:
        session.delete(session.get_one(Product, 3))
    assert tags == {"product:3", "brand:2", "products"}


def test_an_object_that_was_touched_and_not_changed_purges_nothing(store: Store) -> None:
    """Setting what is there already is no change."""
    with store.purged() as tags, store.sessions.begin() as session:
        product = session.get_one(Product, 1)
        product.price = product.price
    assert tags == set()


def test_a_value_that_the_database_works_out_is_read_back(store: Store) -> None:
    """An SQL expression as the new value is not known in Python."""
    with store.purged() as tags, store.sessions.begin() as session:
        session.get_one(Product, 1).brand_id = Product.brand_id + 1
    assert tags >= {"brand:1", "brand:2"}


def test_a_null_leaves_its_template_out(store: Store) -> None:
    """No page carries `brand:None`."""
    with store.purged() as tags, store.sessions.begin() as session:
        session.get_one(Product, 1).brand_id = None
    assert tags == {"product:1", "brand:1", "products"}


def test_a_subclass_inherits_the_tags_of_its_base_and_adds_its_own(store: Store) -> None:
    """A bundle is a product."""
    with store.purged() as tags, store.sessions.begin() as session:
        session.add(Bundle(id=9, brand_id=1))
    assert tags == {"product:9", "brand:1", "products", "bundles"}


def test_a_row_that_gets_another_key_purges_both(store: Store) -> None:
    """Pages of the old key are wrong, and those of the new one too."""
    with store.purged() as tags, store.sessions.begin() as session:
        session.get_one(Label, 1).id = 7
    assert tags == {"label:1", "label:7"}


# -- relationships -----------------------------------------------------------------------------


def test_a_child_that_changes_hands_purges_both_parents(store: Store) -> None:
    """Only the collections were changed; the child's foreign key follows in the flush."""
    with store.purged() as tags, store.sessions.begin() as session:
        product = session.get_one(Product, 1)
        other = session.get_one(Brand, 2)
        other.products.append(product)
    assert tags >= {"product:1", "brand:1", "brand:2"}


def test_children_whose_parent_goes_are_changed_too(store: Store) -> None:
    """SQLAlchemy sets their foreign keys to NULL in the flush, and nobody had named them."""
    with store.purged() as tags, store.sessions.begin() as session:
        session.delete(session.get_one(Brand, 1))
    assert tags == {"brand:1", "product:1", "product:2", "products"}


def test_orphans_are_deleted_with_their_tags(store: Store) -> None:
    """`delete-orphan` is decided in the flush; the review's own method told its tags before it went."""
    with store.sessions.begin() as session:
        session.add(Review(id=1, product_id=1, stars=2))
    with store.purged() as tags, store.sessions.begin() as session:
        product = session.get_one(Product, 1)
        product.reviews.clear()
    assert tags >= {"stars:2", "reviews:1"}


def test_cascaded_deletes_are_seen(store: Store) -> None:
    """Deleting the product deletes its reviews."""
    with store.sessions.begin() as session:
        session.add(Review(id=1, product_id=3, stars=4))
    with store.purged() as tags, store.sessions.begin() as session:
        session.delete(session.get_one(Product, 3))
    assert tags >= {"product:3", "stars:4", "reviews:2"}


def test_what_the_database_deletes_by_itself_is_seen(store: Store) -> None:
    """`ON DELETE CASCADE` with `passive_deletes` runs without SQLAlchemy: the rows are read before it."""
    with store.sessions.begin() as session:
        session.add_all([Note(id=5, product_id=3), Note(id=6, product_id=3)])
    with store.purged() as tags, store.sessions.begin() as session:
        session.delete(session.get_one(Product, 3))
    assert tags >= {"note:5", "note:6", "notes:3"}


def test_an_association_row_changes_both_sides(store: Store) -> None:
    """A label that does not know its products is changed when it is hung on one, or taken off."""
    with store.purged() as tags, store.sessions.begin() as session:
        product = session.get_one(Product, 1)
        product.labels.append(session.get_one(Label, 2))
    assert tags == {"product:1", "brand:1", "products", "label:2"}
    with store.purged() as tags, store.sessions.begin() as session:
        product = session.get_one(Product, 1)
        product.labels.clear()
    assert tags == {"product:1", "brand:1", "products", "label:2"}


def test_a_new_product_with_a_label_changes_the_label(store: Store) -> None:
    """The object is new, the label is not."""
    with store.purged() as tags, store.sessions.begin() as session:
        session.add(Product(id=8, labels=[session.get_one(Label, 1), Label(id=5)]))
    assert tags == {"product:8", "products", "label:1", "label:5"}


@pytest.mark.parametrize("side", [Product, Label])
def test_a_row_that_goes_changes_what_it_was_associated_with(store: Store, side: type) -> None:
    """Whichever side declares the relationship."""
    with store.sessions.begin() as session:
        product = session.get_one(Product, 1)
        product.labels.append(session.get_one(Label, 1))
    with store.purged() as tags, store.sessions.begin() as session:
        if side is Label:
            product = session.get_one(Product, 1)
            product.labels.clear()
        session.delete(session.get_one(side, 1))
    assert tags >= {"label:1", "product:1", "brand:1"}


# -- functions and methods ---------------------------------------------------------------------


def test_a_method_is_asked_before_and_after(store: Store) -> None:
    """It is called for the row as it was, relationships included, and for the row as it is."""
    with store.sessions.begin() as session:
        session.add(Review(id=1, product_id=1, stars=1))
    with store.purged() as tags, store.sessions.begin() as session:
        review = session.get_one(Review, 1)
        review.stars, review.product_id = 5, 3
    assert tags == {"stars:1", "reviews:1", "stars:5", "reviews:2"}


def test_a_method_sees_a_relationship_that_changed_in_the_same_transaction(store: Store) -> None:
    """What another flush has written counts; nothing comes from memory."""
    with store.sessions.begin() as session:
        session.add(Review(id=1, product_id=1, stars=1))
    with store.purged() as tags, store.sessions.begin() as session:
        session.get_one(Product, 1).brand_id = 2
        session.flush()
        session.get_one(Review, 1).stars = 3
    assert tags >= {"stars:1", "stars:3", "reviews:2"}


def test_functions_and_templates_stand_side_by_side(make_store: Callable[..., Store]) -> None:
    """A list may hold both."""

    def dear(product: Product) -> list[str]:
        return ["dear"] if product.price > 100 else []

    store = make_store({Product: ["product:{id}", dear]})
    with store.purged() as tags, store.sessions.begin() as session:
        session.get_one(Product, 1).price = 200
    assert tags == {"product:1", "dear"}
    with store.purged() as tags, store.sessions.begin() as session:
        session.get_one(Product, 1).price = 1
    assert tags == {"product:1", "dear"}


def test_one_function_may_tell_for_every_object(make_store: Callable[..., Store]) -> None:
    """In place of a mapping."""
    store = make_store(lambda row: [f"{type(row).__tablename__}:{row.id}"])
    with store.purged() as tags, store.sessions.begin() as session:
        session.get_one(Label, 1).text = "new"
        session.get_one(Brand, 1).name = "new"
    assert tags == {"label:1", "brand:1"}


def test_what_a_function_raises_ends_the_flush(make_store: Callable[..., Store]) -> None:
    """Tags that cannot be told are not passed over: nothing is committed."""

    def broken(_: object) -> list[str]:
        raise LookupError("no idea")

    store = make_store({Label: broken})
    with store.purged() as tags, store.sessions() as session:
        session.get_one(Label, 1).text = "new"
        with pytest.raises(LookupError, match="no idea"):
            session.commit()
        session.rollback()
        assert session.get_one(Label, 1).text == ""
    assert tags == set()


def test_a_table_that_is_associated_with_itself_changes_both_rows(tmp_path: Path) -> None:
    """Friends of friends: the other side is of the same table."""

    class Own(DeclarativeBase):
        pass

    friends = Table(
        "friends",
        Own.metadata,
        Column("one", ForeignKey("person.id"), primary_key=True),
        Column("two", ForeignKey("person.id"), primary_key=True),
    )

    class Person(Own):
        __tablename__ = "person"
        id: Mapped[int] = mapped_column(primary_key=True)

    Person.friends = relationship(  # type: ignore[attr-defined]
        Person,
        secondary=friends,
        primaryjoin=Person.id == friends.c.one,
        secondaryjoin=Person.id == friends.c.two,
    )
    engine = obedient(tmp_path / "people.db")
    Own.metadata.create_all(engine)
    cache, sessions = HTTPCache(), sessionmaker(engine)
    collector = collect_changes(sessions, cache, {Person: ["person:{id}"]})
    with capture_invalidations(cache) as receipts, sessions() as session:
        people: Any = [Person(id=number) for number in (1, 2, 3)]
        session.add_all(people)
        session.commit()
        people[0].friends.append(people[1])
        session.commit()
        session.execute(insert(friends).values(one=3, two=1))
        session.commit()
        session.execute(delete(friends).where(friends.c.two == 1))
        session.commit()
        session.delete(people[0])
        session.commit()
    collector.stop()
    engine.dispose()
    both = {"person:1", "person:2"}
    assert tags_of(receipts)[1:] == [both, {"person:1", "person:3"}, {"person:1", "person:3"}, both]


def test_what_the_database_deletes_or_empties_by_itself_is_followed_to_its_end(tmp_path: Path) -> None:
    """A tree whose branches fall with their parent, row by row, and what only loses its link; whoever deletes."""

    class Own(DeclarativeBase):
        pass

    class Branch(Own):
        __tablename__ = "branch"
        id: Mapped[int] = mapped_column(primary_key=True)
        parent_id: Mapped[int | None] = mapped_column(ForeignKey("branch.id", ondelete="CASCADE"))

    class Bird(Own):
        __tablename__ = "bird"
        id: Mapped[int] = mapped_column(primary_key=True)
        branch_id: Mapped[int | None] = mapped_column(ForeignKey("branch.id", ondelete="SET NULL"))

        def __cache_tags__(self) -> list[str]:
            return [f"bird:{self.id}:{self.branch_id}"]

    engine = obedient(tmp_path / "tree.db")
    Own.metadata.create_all(engine)
    [key] = Bird.__table__.c.branch_id.foreign_keys
    assert key.constraint is not None
    # As some write it; not every SQLAlchemy makes a table of that.
    key.constraint.ondelete = "set  null"
    cache, sessions = HTTPCache(), sessionmaker(engine)
    tree = [Branch(id=1), Branch(id=2, parent_id=1), Branch(id=3, parent_id=2)]
    expected = {"branch:1", "branch:2", "branch:3", "bird:7:3", "bird:7:None"}
    collector = collect_changes(sessions, cache, {Branch: ["branch:{id}"]})
    for by_statement in (True, False):
        with sessions.begin() as session:
            session.add_all([session.merge(branch) for branch in tree])
            session.flush()
            session.merge(Bird(id=7, branch_id=3))
        with capture_invalidations(cache) as receipts, sessions.begin() as session:
            if by_statement:
                session.execute(delete(Branch).where(Branch.id == 1))
            else:
                session.delete(session.get_one(Branch, 1))
        assert tags_of(receipts) == [expected]
    collector.stop()
    engine.dispose()


def test_a_type_that_changes_what_it_is_given_is_read_back(tmp_path: Path) -> None:
    """What stands in the object is not what stands in the row."""

    class Lower(TypeDecorator[str]):
        impl = String
        cache_ok = True

        def process_bind_param(self, value: str | None, dialect: Any) -> str | None:
            return None if value is None else value.lower()

    class Own(DeclarativeBase):
        pass

    class Page(Own):
        __tablename__ = "page"
        id: Mapped[int] = mapped_column(primary_key=True)
        slug: Mapped[str] = mapped_column(Lower)

    engine = obedient(tmp_path / "pages.db")
    Own.metadata.create_all(engine)
    cache, sessions = HTTPCache(), sessionmaker(engine)
    collector = collect_changes(sessions, cache, {Page: ["page:{slug}"]})
    with capture_invalidations(cache) as receipts, sessions.begin() as session:
        session.add(Page(id=1, slug="News"))
    assert tags_of(receipts) == [{"page:news"}]
    collector.stop()
    engine.dispose()
