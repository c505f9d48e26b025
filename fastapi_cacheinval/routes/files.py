"""What answers with a file and asks nobody who is calling: Starlette's `StaticFiles`, as Starlette wrote it."""

from __future__ import annotations

from typing import Any

from starlette.staticfiles import StaticFiles

from fastapi_cacheinval.routes.own_code import is_frameworks_class

__all__ = ["is_plain_files"]


def is_plain_files(app: Any) -> bool:
    """Whether an app is `StaticFiles` itself, of which nothing is replaced: a subclass may check who is calling."""
    # Of its own attributes none is a method, so what is put over one on the object itself is known by its name.
    return type(app) is StaticFiles and is_frameworks_class(StaticFiles) and vars(app).keys().isdisjoint(dir(type(app)))
