"""What the routes take and answer."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, Field

from example_app.models import BasketLine, Product


class ProductOut(BaseModel):
    """A car as customers see it; ``price`` is ``list_price`` less the discount, in US dollars."""

    id: int
    brand_id: int
    brand: str
    model: str
    year: int
    trim: str
    body_style: str
    horsepower: int
    mpg_city: int | None
    mpg_highway: int | None
    drivetrain: str
    transmission: str
    list_price: int
    discount_percent: int
    price: int
    stock: int

    @classmethod
    def of(cls, product: Product) -> Self:
        """Describe a row, its brand's name included."""
        return cls(
            id=product.id,
            brand_id=product.brand_id,
            brand=product.brand.name,
            model=product.model,
            year=product.year,
            trim=product.trim,
            body_style=product.body_style,
            horsepower=product.horsepower,
            mpg_city=product.mpg_city,
            mpg_highway=product.mpg_highway,
            drivetrain=product.drivetrain,
            transmission=product.transmission,
            list_price=product.list_price,
            discount_percent=product.discount_percent,
            price=product.price,
            stock=product.stock,
        )


class ProductPage(BaseModel):
    """One page of a list and how many products match in all."""

    total: int
    page: int
    products: list[ProductOut]


class ProductChange(BaseModel):
    """A new list price (US dollars), a new stock, or both."""

    list_price: int | None = Field(default=None, ge=1)
    stock: int | None = Field(default=None, ge=0)


class Discount(BaseModel):
    """A discount in percent of the list price; 0 ends it."""

    percent: int = Field(ge=0, le=90)


class BrandOut(BaseModel):
    """A car maker and what it offers."""

    id: int
    name: str
    country: str
    products: int
    list_price_from: int


class BasketItem(BaseModel):
    """One line of a basket."""

    product_id: int
    name: str
    quantity: int
    price: int

    @classmethod
    def of(cls, line: BasketLine) -> Self:
        """Describe a row at today's price."""
        product = line.product
        name = f"{product.brand.name} {product.model}"
        return cls(product_id=product.id, name=name, quantity=line.quantity, price=product.price)


class Basket(BaseModel):
    """A user's basket at today's prices."""

    user_id: int
    items: list[BasketItem]
    total: int


class Quantity(BaseModel):
    """How many; 0 takes the product out of the basket."""

    quantity: int = Field(ge=0, le=9)


class StockValue(BaseModel):
    """What the cars of one brand in stock are worth at today's prices."""

    brand: str
    stock: int
    value: int


class BodyStyle(BaseModel):
    """The average car of one body style."""

    body_style: str
    products: int
    average_horsepower: float
    average_list_price: float


class Token(BaseModel):
    """What OAuth2 clients get for a password."""

    access_token: str
    token_type: str = "bearer"  # noqa: S105 - OAuth2's name for the kind of token


class QueryCount(BaseModel):
    """How many SQL statements this process has run."""

    queries: int


class ReplicaState(BaseModel):
    """Which replica answered, where each is (of a shop of one process nothing), and how it stands with Redis."""

    here: str
    urls: dict[str, str]
    connected: bool
    queued_purges: int
