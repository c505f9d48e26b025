"""A small store: brands, products with labels and reviews, and what the database deletes by itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Column, Engine, ForeignKey, Table, create_engine, event
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship, sessionmaker

from fastapi_cacheinval import HTTPCache, Receipt
from fastapi_cacheinval.contrib.sqlalchemy import Collector, collect_changes
from fastapi_cacheinval.testing import capture_invalidations


class Base(DeclarativeBase):
    pass


labels = Table(
    "product_label",
    Base.metadata,
    Column("product_id", ForeignKey("product.id", ondelete="CASCADE"), primary_key=True),
    Column("label_id", ForeignKey("label.id"), primary_key=True),
)


class Brand(Base):
    __tablename__ = "brand"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(default="")
    products: Mapped[list[Product]] = relationship(back_populates="brand")


class Product(Base):
    __tablename__ = "product"
    id: Mapped[int] = mapped_column(primary_key=True)
    brand_id: Mapped[int | None] = mapped_column(ForeignKey("brand.id"))
    price: Mapped[int] = mapped_column(default=0)
    kind: Mapped[str] = mapped_column(default="product")
    brand: Mapped[Brand | None] = relationship(back_populates="products")
    # Nothing leads back: a label does not know that it was hung on a product.
    labels: Mapped[list[Label]] = relationship(secondary=labels)
    reviews: Mapped[list[Review]] = relationship(back_populates="product", cascade="all, delete-orphan")
    notes: Mapped[list[Note]] = relationship(cascade="all, delete-orphan", passive_deletes=True)
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "product"}  # noqa: RUF012


class Bundle(Product):
    """A product of several, in the same table."""

    size: Mapped[int | None]
    __mapper_args__ = {"polymorphic_identity": "bundle"}  # noqa: RUF012


class Label(Base):
    __tablename__ = "label"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str] = mapped_column(default="")


class Review(Base):
    """The tags are its own affair."""

    __tablename__ = "review"
    id: Mapped[int] = mapped_column(primary_key=True)
    product_id: Mapped[int] = mapped_column(ForeignKey("product.id"))
    stars: Mapped[int] = mapped_column(default=5)
    product: Mapped[Product] = relationship(back_populates="reviews")

    def __cache_tags__(self) -> Iterator[str]:
        yield f"stars:{self.stars}"
        if self.product is not None:
            yield f"reviews:{self.product.brand_id}"


class Note(Base):
    """The database deletes it with its product, and SQLAlchemy does not look."""

    __tablename__ = "note"
    id: Mapped[int] = mapped_column(primary_key=True)
    product_id: Mapped[int] = mapped_column(ForeignKey("product.id", ondelete="CASCADE"))
    text: Mapped[str] = mapped_column(default="")


TAGS: dict[type, Any] = {
    Brand: ["brand:{id}"],
    Product: ["product:{id}", "brand:{brand_id}", "products"],
    Bundle: "bundles",
    Label: ["label:{id}"],
    Note: ["note:{id}", "notes:{product_id}"],
}


def _obey_foreign_keys(connection: Any, _: object) -> None:
    connection.execute("PRAGMA foreign_keys=ON")


def obedient(file: Path) -> Engine:
    """An SQLite file that keeps foreign keys."""
    engine = create_engine(f"sqlite:///{file}")
    event.listen(engine, "connect", _obey_foreign_keys)
    return engine


def make_engine(folder: Path) -> Engine:
    """An SQLite file with the tables."""
    engine = obedient(folder / "store.db")
    Base.metadata.create_all(engine)
    return engine


class Store:
    """Sessions that are watched, over a file with two brands and three products, and what was purged."""

    def __init__(self, folder: Path, tags: Any = TAGS, *, cache: HTTPCache | None = None, **options: Any) -> None:
        self.engine = make_engine(folder)
        self.cache = HTTPCache() if cache is None else cache
        self.sessions = sessionmaker(self.engine)
        with self.sessions.begin() as session:
            session.add_all([Brand(id=1), Brand(id=2), Label(id=1), Label(id=2)])
            session.add_all(Product(id=number, brand_id=1 + (number == 3)) for number in (1, 2, 3))
        self.collector: Collector = collect_changes(self.sessions, self.cache, tags, **options)

    def close(self) -> None:
        self.collector.stop()
        self.engine.dispose()

    @contextmanager
    def purged(self) -> Iterator[set[str]]:
        """The tags that are purged while the block runs, filled at its end."""
        tags: set[str] = set()
        with capture_invalidations(self.cache) as receipts:
            yield tags
        tags.update(tag for receipt in receipts for tag in receipt.tags)


def tags_of(receipts: list[Receipt]) -> list[set[str]]:
    """The tags of each purge."""
    return [set(receipt.tags) for receipt in receipts]
