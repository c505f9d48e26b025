"""The showroom's page, rendered from one HTML file without outside resources."""

from __future__ import annotations

from html import escape
from pathlib import Path
from string import Template

from fastapi import APIRouter
from fastapi.responses import HTMLResponse
from sqlalchemy import select

from example_app.db import Session
from example_app.models import Product
from example_app.routes.products import CATALOGUE
from fastapi_cacheinval import cached

PAGE = Template((Path(__file__).parents[1] / "showroom.html").read_text(encoding="utf-8"))
CARD = Template(
    """<li class="card" data-id="$id" data-percent="$percent">
  <p class="brand">$brand <span>$year</span></p>
  <h2>$model</h2>
  <p class="trim">$trim</p>
  <p class="facts">$horsepower hp · $drivetrain · $country</p>
  <p class="price"><b>$price</b> <s>$list_price</s> <em>$discount</em></p>
  <p class="stock">$stock in stock</p>
  <p class="buttons"><button data-read>Read</button><button data-discount>$offer</button></p>
</li>"""
)

router = APIRouter(include_in_schema=False)


@router.get("/", response_class=HTMLResponse, dependencies=[cached(CATALOGUE, tags=["products"])])
async def showroom(session: Session) -> HTMLResponse:
    """Show every car, with a strip that tells how each answer came."""
    products = list(await session.scalars(select(Product).order_by(Product.id)))
    cards = "\n".join(card(product) for product in products)
    return HTMLResponse(PAGE.substitute(cards=cards, count=len(products)))


def card(product: Product) -> str:
    """Render one car; whatever comes from the database is escaped."""
    reduced = product.discount_percent > 0
    values = {
        "id": product.id,
        "percent": product.discount_percent,
        "offer": "Full price" if reduced else "10 % off",
        "brand": product.brand.name,
        "country": product.brand.country,
        "year": product.year,
        "model": product.model,
        "trim": product.trim,
        "horsepower": product.horsepower,
        "drivetrain": product.drivetrain,
        "price": dollars(product.price),
        "list_price": dollars(product.list_price) if reduced else "",
        "discount": f"−{product.discount_percent} %" if reduced else "",
        "stock": product.stock,
    }
    return CARD.substitute({name: escape(str(value)) for name, value in values.items()})


def dollars(amount: int) -> str:
    """Write whole US dollars: ``$1,416,362``."""
    return f"${amount:,}"
