"""Faults on a seeded schedule, each counted.

Lanes run side by side. Each deals its kinds like cards, so that every kind comes before any comes again.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple

from chaos.history import Fault

__all__ = ["LONG", "SHORT", "Kind", "Lane", "do", "last", "play", "with_options"]

# A fault of a stage: it gives the name of its target, and ends after its block.
Kind = Callable[[Any, random.Random], AbstractAsyncContextManager[str]]

do = asyncio.to_thread

# The length of a fault in shares of the bound: one that outlasts a lease, and one that may not.
LONG, SHORT = (1.3, 3.0), (0.2, 1.0)


class Lane(NamedTuple):
    """Kinds of faults by name, and the shortest and longest peace between two faults, in bounds."""

    kinds: Mapping[str, Kind]
    between: tuple[float, float]


async def last(bound: float, draw: random.Random, shares: tuple[float, float]) -> None:
    """Let something go on for a share of the bound."""
    await asyncio.sleep(bound * draw.uniform(*shares))


def with_options(make: Callable[..., AbstractAsyncContextManager[str]], **options: object) -> Kind:
    """A kind of fault with these options of `make`."""
    return lambda stage, draw: make(stage, draw, **options)


async def play(
    lane: Lane, stage: Any, unit: float, draw: random.Random, until: float, note: Callable[[Fault], object]
) -> None:
    """Make fault after fault. The last one begins before `until`, and may end later. Peace counts in `unit` seconds."""
    deck: list[str] = []
    while time.monotonic() < until:
        deck = deck or draw.sample(list(lane.kinds), len(lane.kinds))
        kind = deck.pop()
        began = time.monotonic()
        async with lane.kinds[kind](stage, draw) as target:
            pass
        note(Fault(kind=kind, target=target, began=began, ended=time.monotonic()))
        await last(unit, draw, lane.between)
