"""The guard against slow-down: a fifth more is noticed, and nothing is noticed where nothing is slower."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bench.guard import compare

ROOT = Path(__file__).parent.parent.parent

HITS = ("front hit", "route hit, partition_by")
# Every fifth request is answered twice.
PLANTED = """

def _plant() -> None:
    from itertools import count

    from fastapi import FastAPI

    call, numbers = FastAPI.__call__, count(1)

    async def twice(self, scope, receive, send):
        async def nowhere(message):
            pass

        if next(numbers) % 5 == 0:
            await call(self, dict(scope), receive, nowhere)
        await call(self, scope, receive, send)

    FastAPI.__call__ = twice


_plant()
"""


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    """A tree that takes a fifth more for each request."""
    shutil.copytree(ROOT / "fastapi_cacheinval", tmp_path / "fastapi_cacheinval")
    with (tmp_path / "fastapi_cacheinval" / "__init__.py").open("a", encoding="utf-8") as package:
        package.write(PLANTED)
    return tmp_path


def test_a_planted_fifth_is_noticed(planted: Path) -> None:
    """Hits that take a fifth more count as slower, and the other way round they do not."""
    found = {each.case: each for each in compare(ROOT, planted, 60, HITS)}
    assert found["front hit"].slower
    assert found["route hit, partition_by"].slower
    assert found["front hit"].before < found["front hit"].now
    back = {each.case: each for each in compare(planted, ROOT, 20, HITS)}
    assert not back["front hit"].slower
    assert not back["route hit, partition_by"].slower


def test_the_same_tree_is_not_slower_than_itself() -> None:
    """Both sides are measured in the same way."""
    found = {each.case: each for each in compare(ROOT, ROOT, 60, HITS)}
    assert not found["front hit"].slower
    assert not found["route hit, partition_by"].slower
