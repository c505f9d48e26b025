"""The tables: brands, products, users and their baskets."""

from __future__ import annotations

from sqlalchemy import ForeignKey
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class Base(DeclarativeBase):
    """The base of every table."""


class Brand(Base):
    """A car maker."""

    __tablename__ = "brand"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    country: Mapped[str]


class Product(Base):
    """A car on sale; prices in whole US dollars, the discount in percent."""

    __tablename__ = "product"

    id: Mapped[int] = mapped_column(primary_key=True)
    brand_id: Mapped[int] = mapped_column(ForeignKey("brand.id"), index=True)
    model: Mapped[str]
    year: Mapped[int]
    trim: Mapped[str]
    body_style: Mapped[str] = mapped_column(index=True)
    horsepower: Mapped[int]
    mpg_city: Mapped[int | None]
    mpg_highway: Mapped[int | None]
    drivetrain: Mapped[str]
    transmission: Mapped[str]
    list_price: Mapped[int]
    discount_percent: Mapped[int] = mapped_column(default=0)
    stock: Mapped[int]

    brand: Mapped[Brand] = relationship(lazy="joined")

    @property
    def price(self) -> int:
        """What the car costs today, rounded to whole dollars."""
        return round(self.list_price * (100 - self.discount_percent) / 100)


class User(Base):
    """Someone who can sign in."""

    __tablename__ = "user"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    password_hash: Mapped[str]
    is_admin: Mapped[bool] = mapped_column(default=False)


class BasketLine(Base):
    """How many of a product a user wants."""

    __tablename__ = "basket_line"

    user_id: Mapped[int] = mapped_column(ForeignKey("user.id"), primary_key=True)
    product_id: Mapped[int] = mapped_column(ForeignKey("product.id"), primary_key=True)
    quantity: Mapped[int]

    product: Mapped[Product] = relationship(lazy="joined")
