"""Waiting for what other processes do: by condition, with a deadline in real seconds."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")

# Real seconds after which a condition that has not come true fails its test.
PATIENCE = 20.0


def until(
    condition: Callable[[], Found | None],
    what: str,
    *,
    seconds: float = PATIENCE,
    detail: Callable[[], str] = str,
) -> Found:
    """Wait until a condition gives something true, and give that; fails with `detail()` after the deadline.

    It blocks the thread: a test on an event loop that has to keep running calls it through `asyncio.to_thread`.
    """
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what} did not come true within {seconds} s\n{detail()}"
        time.sleep(0.005)
    return found
