"""Fill an empty database with the published cars and three users."""

from __future__ import annotations

import csv
from pathlib import Path

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from example_app.models import BasketLine, Brand, Product, User
from example_app.security import hash_password

CARS = Path(__file__).parent / "data" / "cars.csv"

# Published passwords: this shop sells nothing. Name: (password, administrator?)
USERS = {"alice": ("wonderland", False), "bob": ("builder", False), "admin": ("showroom", True)}
BASKETS = {"alice": {43: 1, 11: 1}, "bob": {40: 2}}


async def seed(session: AsyncSession) -> None:
    """Add cars, users and baskets if there are no products yet."""
    if await session.scalar(select(func.count()).select_from(Product)):
        return
    session.add_all(read_products())
    users = {
        name: User(name=name, password_hash=hash_password(password), is_admin=is_admin)
        for name, (password, is_admin) in USERS.items()
    }
    session.add_all(users.values())
    await session.flush()
    for name, lines in BASKETS.items():
        for product_id, quantity in lines.items():
            session.add(BasketLine(user_id=users[name].id, product_id=product_id, quantity=quantity))
    await session.commit()


def read_products() -> list[Product]:
    """Return the rows of cars.csv as products, with brands numbered as they first appear."""
    brands: dict[str, Brand] = {}
    products: list[Product] = []
    with CARS.open(newline="", encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            brand = brands.setdefault(
                row["brand"], Brand(id=len(brands) + 1, name=row["brand"], country=row["country"])
            )
            price = int(row["price_usd"])
            products.append(
                Product(
                    id=int(row["id"]),
                    brand=brand,
                    model=row["model"],
                    year=int(row["year"]),
                    trim=row["trim"],
                    body_style=row["body_style"],
                    horsepower=int(row["horsepower"]),
                    mpg_city=_whole(row["mpg_city"]),
                    mpg_highway=_whole(row["mpg_highway"]),
                    drivetrain=row["drivetrain"],
                    transmission=row["transmission"],
                    list_price=price,
                    discount_percent=0,
                    # The data set has no stock; data/SOURCE.md states this rule.
                    stock=max(1, 600_000 // price),
                )
            )
    return products


def _whole(text: str) -> int | None:
    return int(text) if text else None
