"""Reports: one for administrators, one that is slow, the count of SQL statements, and who the replicas are."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request
from sqlalchemy import func, select

from example_app.db import Session, database
from example_app.models import Brand, Product
from example_app.replicas import NAMES, name_of, replica_urls
from example_app.schemas import BodyStyle, QueryCount, ReplicaState, StockValue
from example_app.security import require_admin
from fastapi_cacheinval import HTTPCache, cached

SLOW_SECONDS = 0.3

router = APIRouter(tags=["reports"])


@router.get("/admin/report", dependencies=[cached(ttl=60, tags=["products"], guarded_by=require_admin)])
async def stock_report(session: Session) -> list[StockValue]:
    """Value the stock by brand: the same for every administrator, and nobody else gets it."""
    price = Product.list_price * (100 - Product.discount_percent) / 100
    value = func.sum(price * Product.stock)
    query = select(Brand.name, func.sum(Product.stock), value).join(Product).group_by(Brand.id)
    rows = await session.execute(query.order_by(value.desc()))
    return [StockValue(brand=name, stock=stock, value=round(worth)) for name, stock, worth in rows]


@router.get("/slow-report", dependencies=[cached(ttl=60, tags=["products"])])
async def slow_report(session: Session) -> list[BodyStyle]:
    """Compare body styles, with one query and a wait that stands for a slow upstream."""
    count = func.count(Product.id)
    averages = (func.avg(Product.horsepower), func.avg(Product.list_price))
    query = select(Product.body_style, count, *averages).group_by(Product.body_style)
    rows = (await session.execute(query.order_by(count.desc()))).all()
    await asyncio.sleep(SLOW_SECONDS)
    return [
        BodyStyle(
            body_style=style,
            products=products,
            average_horsepower=round(horsepower, 1),
            average_list_price=round(list_price, 2),
        )
        for style, products, horsepower, list_price in rows
    ]


@router.get("/debug/queries")
async def count_queries() -> QueryCount:
    """Tell how many SQL statements this process has run; never cached."""
    return QueryCount(queries=database.queries)


@router.get("/debug/replicas")
async def show_replica(request: Request) -> ReplicaState:
    """Tell which replica this is, where the others are, and how it stands with Redis; never cached."""
    cache: HTTPCache = request.app.state.cache
    now = cache.statistics()
    return ReplicaState(
        here=name_of(request.scope),
        urls=dict(zip(NAMES, replica_urls(), strict=False)),
        connected=now.connected,
        queued_purges=now.queue_length,
    )
