"""Who is asking: passwords (scrypt), signed tokens (HMAC-SHA-256) and the dependencies that check them."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import secrets
import time
from base64 import b64decode, b64encode
from typing import Annotated

from fastapi import Depends, HTTPException
from fastapi.security import OAuth2PasswordBearer
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from example_app.db import Session
from example_app.models import User

TOKEN_SECONDS = 3600
SHARED = os.environ.get("EXAMPLE_SECRET", "").encode()


def shared_secret(use: str) -> bytes | None:
    """A key for one use, the same in every process that has the same EXAMPLE_SECRET; None without one."""
    return hmac.digest(SHARED, use.encode(), "sha256") if SHARED else None


SIGNING_KEY = shared_secret("tokens") or secrets.token_bytes(32)

bearer = OAuth2PasswordBearer(tokenUrl="token")


def hash_password(password: str) -> str:
    """Return ``salt$digest``, both base64, of ``password`` with a fresh salt."""
    salt = secrets.token_bytes(16)
    return f"{b64encode(salt).decode()}${b64encode(_scrypt(password, salt)).decode()}"


def verify_password(password: str, password_hash: str) -> bool:
    """Tell in constant time whether ``password`` made ``password_hash``."""
    salt, digest = (b64decode(part) for part in password_hash.split("$"))
    return hmac.compare_digest(_scrypt(password, salt), digest)


def _scrypt(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=2**14, r=8, p=1)


# Unknown names are checked against this, so that they take as long as known ones.
NOBODY = hash_password(secrets.token_hex())


async def authenticate(session: AsyncSession, name: str, password: str) -> User | None:
    """Return the user of that name if the password is theirs; it is hashed off the event loop."""
    user = await session.scalar(select(User).where(User.name == name))
    expected = user.password_hash if user else NOBODY
    matches = await asyncio.to_thread(verify_password, password, expected)
    return user if matches else None


def make_token(user_id: int) -> str:
    """Return ``user.expiry.signature``, good for an hour."""
    claims = f"{user_id}.{int(time.time()) + TOKEN_SECONDS}"
    return f"{claims}.{_sign(claims)}"


def read_token(token: str) -> int | None:
    """Return the user's id if the token is signed by us and has not expired."""
    claims, _, signature = token.rpartition(".")
    if not hmac.compare_digest(signature.encode(), _sign(claims).encode()):
        return None
    user_id, expiry = (int(part) for part in claims.split("."))
    return user_id if time.time() < expiry else None


def _sign(claims: str) -> str:
    return hmac.new(SIGNING_KEY, claims.encode(), hashlib.sha256).hexdigest()


async def current_user(token: Annotated[str, Depends(bearer)], session: Session) -> User:
    """The user whose token came with the request; without a good one the answer is 401."""
    user_id = read_token(token)
    user = await session.get(User, user_id) if user_id is not None else None
    if user is None:
        raise HTTPException(401, "sign in first", headers={"WWW-Authenticate": "Bearer"})
    return user


async def current_user_id(user: Annotated[User, Depends(current_user)]) -> int:
    """The id of the user, by which personal pages are kept apart in the cache."""
    return user.id


async def require_admin(user: Annotated[User, Depends(current_user)]) -> None:
    """A guard: only administrators pass, others get 403."""
    if not user.is_admin:
        raise HTTPException(403, "administrators only")
