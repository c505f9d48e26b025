"""Waiting for what other processes do: by condition, with a deadline in real seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

__all__ = ["PATIENCE", "until"]

Found = TypeVar("Found")

PATIENCE = 20.0
"""Real seconds after which a condition that has not come true fails its test."""


def until(
    condition: Callable[[], Found | None],
    what: str,
    *,
    seconds: float = PATIENCE,
    detail: Callable[[], str] = str,
) -> Found:
    """Wait until a condition gives something true, and give that; `AssertionError` with `detail()` after the deadline.

    It blocks the thread: on an event loop that has to keep running it is called through `asyncio.to_thread`.
    """
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() >= deadline:
            raise AssertionError(f"{what} did not come true within {seconds} s\n{detail()}")
        time.sleep(0.005)
    return found
