"""A row of the outbox that is kept until the CDN has confirmed its purge."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fastapi_cacheinval.testing.servers.child import Child
from tests.contrib.cdn.fakes import TOKEN, FakeFastly, serving
from tests.helpers.fleet import eventually, of_age
from tests.helpers.outbox import Shop, replica
from tests.servers import Valkey

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[3]


@contextmanager
def worker(shop: Shop, cdn: FakeFastly, directory: Path, name: str) -> Generator[Child]:
    """A process that relays, until it is killed."""
    environment = {
        **os.environ,
        "REDIS_URL": shop.redis,
        "DATABASE": shop.url,
        "CDN_URL": cdn.url,
        "SERVICE": cdn.service,
        "TOKEN": TOKEN,
    }
    child = Child(
        name, [sys.executable, "-m", "tests.contrib.together.worker"], directory, environment=environment, cwd=ROOT
    )
    try:
        yield child
    finally:
        child.kill()


async def test_a_worker_that_is_killed_before_the_cdn_has_confirmed_loses_no_purge(
    opened: Shop, redis_server: Valkey, tmp_path: Path
) -> None:
    """Replicas obey at once; while the CDN refuses the row stays, and after a SIGKILL another worker purges the CDN."""
    with serving(FakeFastly()) as cdn:
        cdn.always = "503"
        async with replica(opened) as reader:
            assert await reader.serves() == 0
            # In a young one there may be leases of the term before, as long as the reader's.
            of_age(redis_server)
            await opened.change(1)
            with worker(opened, cdn, tmp_path, "first"):
                await eventually(lambda: cdn.requests, "a request to the CDN")
                await eventually(lambda: reader.cache.statistics().applied >= 1, "the purge on the replica")
                assert await reader.serves() == 1
            assert not cdn.purged
            assert [row.tags for row in await opened.rows()] == ['["product:1"]']
            cdn.always = ""
            with worker(opened, cdn, tmp_path, "second"):
                await eventually(lambda: "product:1" in cdn.keys, "the purge of the CDN")
                await opened.empty()
