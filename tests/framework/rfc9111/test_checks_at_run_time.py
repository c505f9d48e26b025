"""What a guess or a rule lets be reused is no hit once its route gets a check, in one process."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from fastapi import Depends, FastAPI
from fastapi.routing import APIRoute
from starlette.routing import Mount

from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.testing import FakeClock
from tests.helpers.checked import RULED, Guarded, get, plain, release, route, user
from tests.helpers.fleet import found

pytestmark = pytest.mark.anyio

# Seconds for which a route is believed to be what it was.
SOON = 0.02


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a file that has a date to guess by."""
    (tmp_path / "page").write_text("page of many bytes")
    os.utime(tmp_path / "page", (1e9, 1e9))
    return tmp_path


def _replace(app: FastAPI, folder: Path) -> None:
    app.router.routes[:] = [each for each in app.router.routes if getattr(each, "path", "") != "/in/{name}"]
    route(folder, Depends(user))(app)


def _put_before(app: FastAPI, folder: Path) -> None:
    route(folder, Depends(user))(app)
    app.router.routes.insert(0, app.router.routes.pop())


def _override(app: FastAPI, folder: Path) -> None:
    app.dependency_overrides[free] = user


def _depend(app: FastAPI, folder: Path) -> None:
    other = FastAPI()
    route(folder, Depends(user))(other)
    there, here = (next(each for each in one.router.routes if isinstance(each, APIRoute)) for one in (other, app))
    here.dependant = there.dependant


def free() -> None:
    """Whoever calls."""


@pytest.mark.parametrize("change", [_replace, _put_before, _override, _depend])
async def test_a_check_that_a_route_gets_at_run_time_is_made_soon(folder: Path, change: Any) -> None:
    """A page that the same process has stored by a rule is a hit until its route asks who is calling."""
    clock = FakeClock()
    app = release(route(folder, Depends(free)), RULED)(HTTPCache(clock=clock))
    assert not await found(app, "/in/page")
    assert await found(app, "/in/page")
    change(app, folder)
    clock.tick(SOON)
    answer = await get(app)
    assert answer.cache is not None
    assert not answer.cache.hit


async def test_files_that_get_a_check_at_run_time_are_no_hits(folder: Path) -> None:
    """The mount has another app now."""
    clock = FakeClock()
    app = release(plain(folder), True)(HTTPCache(clock=clock))
    assert not await found(app, "/in/page")
    assert await found(app, "/in/page")
    mount = next(each for each in app.router.routes if isinstance(each, Mount))
    mount.app = Guarded(mount.app)
    clock.tick(SOON)
    assert (await get(app)).status_code == 403


async def test_a_part_is_no_hit_either(folder: Path) -> None:
    """Files above `max_body_bytes` are kept in parts."""
    (folder / "page").write_text("page of many bytes" * 100)
    os.utime(folder / "page", (1e9, 1e9))
    clock = FakeClock()
    app = release(plain(folder), True)(HTTPCache(max_body_bytes=1024, clock=clock))
    ranged: dict[str, Any] = {"headers": {"range": "bytes=0-3"}}
    await get(app, **ranged)
    again = await get(app, **ranged)
    assert again.cache is not None
    assert (again.status_code, again.cache.hit) == (206, True)
    mount = next(each for each in app.router.routes if isinstance(each, Mount))
    mount.app = Guarded(mount.app)
    clock.tick(SOON)
    assert (await get(app, **ranged)).status_code == 403
