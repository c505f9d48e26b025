"""The catalogue: list, detail, search, and the mutations that change prices and stock."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Query
from sqlalchemy import Select, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from example_app.db import LateSession, PromptSession, Session
from example_app.models import Brand, Product
from example_app.schemas import BrandOut, Discount, ProductChange, ProductOut, ProductPage
from example_app.security import require_admin
from fastapi_cacheinval import CachePolicy, CacheTags, cached

PAGE_SIZE = 12
CATALOGUE = CachePolicy(ttl=300, stale_while_revalidate=3600, stale_if_error=86400)

# After a second an old answer is good enough while a new one is fetched in the background.
BRAND_LIST = CachePolicy(ttl=1, stale_while_revalidate=3600, jitter=0, early_refresh=0)

router = APIRouter(tags=["catalogue"])
Page = Annotated[int, Query(ge=1, le=1000)]


@router.get("/products", dependencies=[cached(CATALOGUE, tags=["products"])])
async def list_products(
    session: Session, brand: str | None = None, category: str | None = None, page: Page = 1
) -> ProductPage:
    """List cars, of one brand or body style if asked, twelve to a page."""
    query = select(Product).join(Brand)
    if brand is not None:
        query = query.where(Brand.name == brand)
    if category is not None:
        query = query.where(Product.body_style == category)
    return await one_page(session, query, page)


@router.get("/products/{product_id}", dependencies=[cached(CATALOGUE, tags=["product:{product_id}"])])
async def read_product(product_id: int, session: Session, tags: CacheTags) -> ProductOut:
    """Describe one car."""
    product = await find_product(session, product_id)
    # Known only now: which brand's name and country stand in this answer.
    tags.add(f"brand:{product.brand_id}")
    return ProductOut.of(product)


@router.get("/search", dependencies=[cached(CATALOGUE, tags=["products"])])
async def search_products(
    q: Annotated[str, Query(min_length=1, max_length=64)], session: Session, page: Page = 1
) -> ProductPage:
    """Find cars by a part of their brand, model or trim."""
    name = Brand.name + " " + Product.model + " " + Product.trim
    query = select(Product).join(Brand).where(name.icontains(q, autoescape=True))
    return await one_page(session, query, page)


@router.get("/brands", dependencies=[cached(BRAND_LIST, tags=["products"])])
async def list_brands(session: Session) -> list[BrandOut]:
    """List the brands with the number of their cars and the lowest list price."""
    counted = select(Brand, func.count(Product.id), func.min(Product.list_price))
    rows = await session.execute(counted.join(Product).group_by(Brand.id).order_by(Brand.name))
    return [
        BrandOut(id=brand.id, name=brand.name, country=brand.country, products=n, list_price_from=low)
        for brand, n, low in rows
    ]


# What these change is told by the models (TAGS in db.py): nothing of it is declared here.
@router.put("/products/{product_id}", dependencies=[Depends(require_admin)])
async def change_product(product_id: int, change: ProductChange, session: PromptSession) -> ProductOut:
    """Set the list price or the stock; the session commits before the response is made."""
    product = await find_product(session, product_id)
    if change.list_price is not None:
        product.list_price = change.list_price
    if change.stock is not None:
        product.stock = change.stock
    return ProductOut.of(product)


@router.post("/products/{product_id}/discount", dependencies=[Depends(require_admin)])
async def discount_product(product_id: int, discount: Discount, session: LateSession) -> ProductOut:
    """Put a car on offer. The session commits last; the response is held until then."""
    product = await find_product(session, product_id)
    product.discount_percent = discount.percent
    return ProductOut.of(product)


@router.post("/brands/{brand_id}/discount", dependencies=[Depends(require_admin)])
async def discount_brand(brand_id: int, discount: Discount, session: PromptSession) -> ProductPage:
    """Put all cars of a brand on offer."""
    query = select(Product).where(Product.brand_id == brand_id).order_by(Product.id)
    products = list(await session.scalars(query))
    if not products:
        raise HTTPException(404, "no such brand")
    for product in products:
        product.discount_percent = discount.percent
    return ProductPage(total=len(products), page=1, products=[ProductOut.of(p) for p in products])


async def find_product(session: AsyncSession, product_id: int) -> Product:
    """Return the product, or answer 404."""
    product = await session.get(Product, product_id)
    if product is None:
        raise HTTPException(404, "no such product")
    return product


async def one_page(session: AsyncSession, query: Select[Product], page: int) -> ProductPage:
    """Return the asked page of what the query finds."""
    total = await session.scalar(select(func.count()).select_from(query.subquery()))
    window = query.order_by(Product.id).limit(PAGE_SIZE).offset((page - 1) * PAGE_SIZE)
    products = [ProductOut.of(product) for product in await session.scalars(window)]
    return ProductPage(total=total or 0, page=page, products=products)
