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

# Does something to a stage, gives what it was done to, and makes it good again after its block.
Kind = Callable[[Any, random.Random], AbstractAsyncContextManager[str]]

do = asyncio.to_thread

# In shares of the bound: what has to outlast a lease, and what need not.
LONG, SHORT = (1.3, 3.0), (0.2, 1.0)


class Lane(NamedTuple):
    """Kinds by name, and for how many bounds, from and to, there is peace between two of them."""

    kinds: Mapping[str, Kind]
    between: tuple[float, float]


async def last(bound: float, draw: random.Random, shares: tuple[float, float]) -> None:
    """Let something go on for a share of the bound."""
    await asyncio.sleep(bound * draw.uniform(*shares))


def with_options(make: Callable[..., AbstractAsyncContextManager[str]], **options: object) -> Kind:
    """A kind of fault that is another one in a certain way."""
    return lambda stage, draw: make(stage, draw, **options)


async def play(
    lane: Lane, stage: Any, unit: float, draw: random.Random, until: float, note: Callable[[Fault], object]
) -> None:
    """Fault after fault; the last one begins before `until` and ends when it ends. Peace is told in `unit` seconds."""
    deck: list[str] = []
    while time.monotonic() < until:
        deck = deck or draw.sample(list(lane.kinds), len(lane.kinds))
        kind = deck.pop()
        began = time.monotonic()
        async with lane.kinds[kind](stage, draw) as target:
            pass
        note(Fault(kind=kind, target=target, began=began, ended=time.monotonic()))
        await last(unit, draw, lane.between)
