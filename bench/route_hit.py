"""A hit behind an auth dependency, beside a route that is not cached behind the same dependency."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import OAuth2PasswordBearer
from starlette.types import ASGIApp, Scope

from bench.apps import content
from bench.report import Options, Table, reached
from bench.requests import BATCH, Subject, ask, get_scope, interleaved, medians
from fastapi_cacheinval import CacheMiddleware, cached

__all__ = ["run"]

_USERS = {f"token-{number}": f"user-{number}" for number in range(100)}
_TOKEN = OAuth2PasswordBearer("token")
# Of the noise of two medians that are the same.
_TOLERANCE = 1.02


async def current_user(token: Annotated[str, Depends(_TOKEN)]) -> str:
    """Who holds the token."""
    user = _USERS.get(token)
    if user is None:
        raise HTTPException(401, "unknown token")
    return user


def _uncached() -> FastAPI:
    app = FastAPI()
    item = content(1024)

    @app.get("/trivial")
    async def trivial(user: Annotated[str, Depends(current_user)]) -> dict[str, str]:
        return {"user": user}

    @app.get("/same")
    async def same(user: Annotated[str, Depends(current_user)]) -> dict[str, Any]:
        return item

    return app


def _cached() -> FastAPI:
    app = FastAPI()
    app.add_middleware(CacheMiddleware)
    item = content(1024)

    @app.get("/partition", dependencies=[cached(ttl=86_400, partition_by=current_user, tags=["pages"])])
    async def partitioned(user: Annotated[str, Depends(current_user)]) -> dict[str, Any]:
        return item

    @app.get("/guard", dependencies=[cached(ttl=86_400, guarded_by=current_user, tags=["pages"])])
    async def guarded() -> dict[str, Any]:
        return item

    return app


async def _measure(options: Options) -> dict[str, float]:
    uncached, with_cache = _uncached(), _cached()
    tokens = list(_USERS)
    subjects: dict[str, Subject] = {}
    routes: dict[str, tuple[ASGIApp, str]] = {
        "trivial": (uncached, "/trivial"),
        "same": (uncached, "/same"),
        "partition": (with_cache, "/partition"),
        "guard": (with_cache, "/guard"),
    }
    for name, (app, path) in routes.items():
        turn = iter(range(10**9))

        def scope(path: str = path, turn: Any = turn) -> Scope:
            return get_scope(path, [("authorization", f"Bearer {tokens[next(turn) % len(tokens)]}")])

        for _ in tokens:
            await ask(app, scope())
        last = await ask(app, scope())
        if app is with_cache and not last.field(b"cache-status").startswith(b"cacheinval; hit"):
            raise RuntimeError(f"{path} is no hit: {last.status} {last.headers}")
        subjects[name] = Subject(app, scope)
    return medians(await interleaved(subjects, options.pick(300, 5)))


def run(options: Options) -> list[Table]:
    """Two routes that are cached, two that are not."""
    taken = asyncio.run(_measure(options))
    limit = taken["trivial"]
    rows: list[tuple[str, ...]] = [
        ("trivial route, not cached", f"{taken['trivial']:.1f}", "1.00", "", ""),
        ("route with 1 KiB of JSON, not cached", f"{taken['same']:.1f}", f"{taken['same'] / limit:.2f}", "", ""),
    ]
    for name, label in (("partition", "hit, `partition_by`"), ("guard", "hit, `guarded_by`")):
        rows.append(
            (
                label,
                f"{taken[name]:.1f}",
                f"{taken[name] / limit:.2f}",
                "no dearer than the trivial route",
                reached(taken[name] <= limit * _TOLERANCE),
            )
        )
    return [
        Table(
            "Route hit behind an auth dependency, in process",
            "All four routes depend on the same function, which takes a bearer token from `OAuth2PasswordBearer` and "
            f"looks up its user; {len(_USERS)} users in turn. Batches of {BATCH} in turn, medians. The routes that are "
            "not cached stand in an app without the middleware; a difference of up to "
            f"{_TOLERANCE - 1:.0%} counts as none.",
            ("route", "µs per request", "share", "target", "reached"),
            rows,
        )
    ]
