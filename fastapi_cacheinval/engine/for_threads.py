"""Work that threads have an event loop do, and that they wait for.

A loop stands still while its own thread waits for something else, perhaps for the very thread that waits for it. From
outside that looks like a loop that is busy for long. So nobody waits for a loop that gives no sign, and whoever calls
does the work on a loop of its own. After a wrong guess it is done all the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, wait
from contextvars import Context, copy_context
from typing import Any, TypeVar

__all__ = ["ForThreads"]

_Result = TypeVar("_Result")

# Seconds within which a loop gives a sign, and between two looks of a thread that waits.
_LONGEST = 0.05
_LOOK = 0.02


class ForThreads:
    """One event loop as other threads see it; `own` begins work on it, in a context, and keeps it until its end."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, own: Callable[[Coroutine[Any, Any, None], Context], object]
    ) -> None:
        self._loop = loop
        self._own = own
        # Since when a sign is waited for; None where none is.
        self._asked: float | None = None

    def do(self, work: Callable[[], Coroutine[Any, Any, _Result]], deadline: float) -> _Result | None:
        """Have the loop do the work, and give its result; None if the loop stands still or ends, so that you do it.

        Raises `TimeoutError` past the deadline, in seconds of `time.monotonic()`, and the work goes on.
        """
        made: Future[_Result | None] = Future()

        def begin() -> None:
            # Whoever does not wait any more does it elsewhere. This runs in a copy of the context of who calls.
            if made.set_running_or_notify_cancel():
                self._own(_make(work, made), copy_context())

        self._have(begin)
        while not self._stands_still:
            left = deadline - time.monotonic()
            if wait((made,), min(_LOOK, max(left, 0.0))).done:
                return made.result()
            if left <= 0:
                raise TimeoutError
            if self._asked is None:
                self._asked = time.monotonic()
                self._have(self._sign)
        # What it has begun it may bring to its end later, beside what is done in its place.
        made.cancel()
        return None

    @property
    def _stands_still(self) -> bool:
        asked = self._asked
        return not self._loop.is_running() or (asked is not None and time.monotonic() - asked > _LONGEST)

    def _sign(self) -> None:
        self._asked = None

    def _have(self, call: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # it is closed, and so does not run
            self._loop.call_soon_threadsafe(call)


async def _make(work: Callable[[], Coroutine[Any, Any, _Result]], made: Future[_Result | None]) -> None:
    try:
        made.set_result(await work())
    except Exception as error:  # noqa: BLE001  # raised where it is waited for
        made.set_exception(error)
    except BaseException:
        made.set_result(None)
        raise
