"""Who may look into the cache: the shop's administrators, by the name and password that their browser asks for."""

from __future__ import annotations

import hmac
import time
from typing import Annotated

from fastapi import Depends, HTTPException
from fastapi.security import HTTPBasic, HTTPBasicCredentials

from example_app.db import Session
from example_app.security import SIGNING_KEY, authenticate

__all__ = ["operator"]

REMEMBERED_SECONDS = 60.0

basic = HTTPBasic(realm="Showroom")

# Until when a pair of name and password is known to be good: a page asks often, and a password takes long to check.
_good: dict[bytes, float] = {}


async def operator(who: Annotated[HTTPBasicCredentials, Depends(basic)], session: Session) -> None:
    """A guard of the inspector: administrators pass, others get 403, and without a good password it is 401."""
    pair = hmac.digest(SIGNING_KEY, f"{who.username}\n{who.password}".encode(), "sha256")
    if time.monotonic() < _good.get(pair, 0.0):
        return
    user = await authenticate(session, who.username, who.password)
    if user is None:
        raise HTTPException(401, "sign in first", headers={"WWW-Authenticate": 'Basic realm="Showroom"'})
    if not user.is_admin:
        raise HTTPException(403, "administrators only")
    _good.clear()
    _good[pair] = time.monotonic() + REMEMBERED_SECONDS
