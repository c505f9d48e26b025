"""What this process keeps, looked through without holding up the event loop: the most used, and what a text names."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from heapq import nlargest
from itertools import islice
from time import perf_counter
from typing import TypeVar

from fastapi_cacheinval.core.stored import StoredResponse
from fastapi_cacheinval.core.tags import is_reserved, path_of
from fastapi_cacheinval.engine.engine import Engine, Kept
from fastapi_cacheinval.stores.memory import MemoryStore
from fastapi_cacheinval.stores.order import Node

__all__ = ["Contents", "Found", "HotTag", "Page", "find", "look_through"]

# Seconds of work between two turns of the event loop, and in all.
_SLICE = 0.0005
_BUDGET = 0.5
_MOST_TAGS = 20_000
# Those that were kept longest have been used: what is not, goes.
_MOST_NODES = 30_000
_CHUNK = 1_000

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Page:
    """One stored response, without its body, its fields, its query and its partition.

    `key` begins the digest that it is kept under. `uses` are look-ups since the store last looked for room.
    `age` and `fresh` are seconds; `fresh` is negative where it is stale.
    """

    key: str
    route: str | None
    path: str
    status: int
    uses: int
    size_bytes: int
    age: float
    fresh: float


@dataclass(frozen=True, slots=True)
class HotTag:
    """One tag: how many stored responses carry it, what they take, and how often they were looked up."""

    tag: str
    responses: int
    uses: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Contents:
    """The most used of what is kept; `looked_at` of `responses` were looked at before time was up."""

    responses: int
    looked_at: int
    tags: int
    pages: tuple[Page, ...]
    hot_tags: tuple[HotTag, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """What a text names among what is kept; `complete` is False where there may be more."""

    pages: tuple[Page, ...]
    tags: tuple[str, ...]
    complete: bool


def _nodes(engine: Engine) -> list[Node[Kept]]:
    store = engine.store
    return store.nodes(_MOST_NODES) if isinstance(store, MemoryStore) else []


async def _each(items: Iterable[Item], visit: Callable[[Item], object]) -> int:
    """Visit items in slices, until one visit says `False` or time is up; how many were visited."""
    count, spent, began = 0, 0.0, perf_counter()
    for item in items:
        count += 1
        if visit(item) is False:
            break
        took = perf_counter() - began
        if took >= _SLICE:
            spent += took
            if spent >= _BUDGET:
                break
            await asyncio.sleep(0)
            began = perf_counter()
    return count


async def _most(items: Iterable[Item], most: int, by: Callable[[Item], tuple[int, ...]]) -> list[Item]:
    """The `most` largest, found chunk by chunk."""
    best: list[Item] = []
    left = iter(items)
    while chunk := list(islice(left, _CHUNK)):
        best = nlargest(most, [*best, *chunk], key=by)
        await asyncio.sleep(0)
    return best


async def look_through(engine: Engine, most: int) -> Contents:
    """The `most` pages and tags that were used most."""
    nodes = _nodes(engine)
    tags: dict[str, list[int]] = {}
    stored: list[Node[Kept]] = []

    def visit(node: Node[Kept]) -> None:
        value = node.value
        if not isinstance(value, StoredResponse):
            return
        stored.append(node)
        for tag in value.tags:
            if is_reserved(tag):
                continue
            counts = tags.get(tag)
            if counts is None:
                if len(tags) >= _MOST_TAGS:
                    continue
                counts = tags[tag] = [0, 0, 0]
            counts[0] += 1
            counts[1] += node.uses
            counts[2] += node.cost

    looked_at = await _each(nodes, visit)
    pages = await _most(stored, most, lambda node: (node.uses, node.cost))
    hot = await _most(tags.items(), most, lambda item: (item[1][1], item[1][0]))
    return Contents(
        responses=engine.store.statistics().responses,
        looked_at=looked_at,
        tags=len(tags),
        pages=await _pages(engine, pages),
        hot_tags=tuple(HotTag(tag, *counts) for tag, counts in hot),
    )


async def find(engine: Engine, text: str, most: int) -> Found:
    """Pages whose path or route, and tags that contain a text; of each at most `most`."""
    nodes = _nodes(engine)
    pages: list[Node[Kept]] = []
    tags: dict[str, None] = {}
    more = False

    def visit(node: Node[Kept]) -> bool:
        nonlocal more
        value = node.value
        if not isinstance(value, StoredResponse):
            return True
        if text in (value.route or "") or text in (_path(value) or ""):
            if len(pages) < most:
                pages.append(node)
            else:
                more = True
        for tag in value.tags:
            if text in tag and not is_reserved(tag) and tag not in tags:
                if len(tags) < most:
                    tags[tag] = None
                else:
                    more = True
        return len(pages) < most or len(tags) < most

    looked_at = await _each(nodes, visit)
    whole = not more and looked_at == len(nodes) < _MOST_NODES
    return Found(await _pages(engine, pages), tuple(tags), whole)


async def _pages(engine: Engine, nodes: list[Node[Kept]]) -> tuple[Page, ...]:
    """Stored responses as they are shown; of one with thousands of tags it takes a while to find the path."""
    found: list[Page] = []
    now = engine.now()
    await _each(nodes, lambda node: found.append(_page(node, now)))
    return tuple(found)


def _path(stored: StoredResponse) -> str | None:
    return next((path for tag in stored.tags if (path := path_of(tag)) is not None), None)


def _page(node: Node[Kept], now: float) -> Page:
    stored = node.value
    assert isinstance(stored, StoredResponse)
    return Page(
        key=node.key.hex()[:12],
        route=stored.route,
        path=_path(stored) or "",
        status=stored.status,
        uses=node.uses,
        size_bytes=node.cost,
        age=now - stored.created,
        fresh=stored.fresh_until - now,
    )
