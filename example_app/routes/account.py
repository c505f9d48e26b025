"""Signing in, and each user's own basket."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException
from fastapi.security import OAuth2PasswordRequestForm
from sqlalchemy import select

from example_app.db import PromptSession, Session
from example_app.models import BasketLine, Product
from example_app.schemas import Basket, BasketItem, Quantity, Token
from example_app.security import authenticate, current_user_id, make_token
from fastapi_cacheinval import CacheTags, cached, invalidates_nothing

router = APIRouter(tags=["account"])
UserId = Annotated[int, Depends(current_user_id)]


# Signing in changes nothing that is cached: without the word its path and that of the page above it would be purged.
@router.post("/token", dependencies=[invalidates_nothing()])
async def sign_in(form: Annotated[OAuth2PasswordRequestForm, Depends()], session: Session) -> Token:
    """Trade a password for a token."""
    user = await authenticate(session, form.username, form.password)
    if user is None:
        raise HTTPException(401, "wrong name or password", headers={"WWW-Authenticate": "Bearer"})
    return Token(access_token=make_token(user.id))


@router.get("/me/basket", dependencies=[cached(ttl=60, partition_by=current_user_id)])
async def read_basket(user_id: UserId, session: Session, tags: CacheTags) -> Basket:
    """Show the basket of whoever asks: kept once per user, and the token is checked on every hit."""
    query = select(BasketLine).where(BasketLine.user_id == user_id).order_by(BasketLine.product_id)
    lines = list(await session.scalars(query))
    tags.add(f"basket:{user_id}")
    for line in lines:
        # A discount on a car in the basket changes its total.
        tags.add(f"product:{line.product_id}", f"brand:{line.product.brand_id}")
    items = [BasketItem.of(line) for line in lines]
    return Basket(user_id=user_id, items=items, total=sum(item.price * item.quantity for item in items))


@router.put("/me/basket/{product_id}", status_code=204)
async def change_basket(product_id: int, body: Quantity, user_id: UserId, session: PromptSession) -> None:
    """Set how many of a car the user wants."""
    if await session.get(Product, product_id) is None:
        raise HTTPException(404, "no such product")
    if body.quantity:
        await session.merge(BasketLine(user_id=user_id, product_id=product_id, quantity=body.quantity))
    elif line := await session.get(BasketLine, (user_id, product_id)):
        await session.delete(line)
