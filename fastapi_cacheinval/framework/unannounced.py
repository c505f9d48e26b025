"""The end of a body whose length nobody has announced."""

from __future__ import annotations

from asyncio import AbstractEventLoop, TimerHandle
from collections.abc import Callable
from contextvars import Context

__all__ = ["UnannouncedEnd"]

# Real seconds after which such a body is taken for whole although the app goes on, with a background task.
_TAKEN_FOR_WHOLE = 0.1


class UnannouncedEnd:
    """Waits for the app to return, or to go on for a while, before a body that it has ended is taken for whole.

    Until then the app may raise: what it has ended was then half of the body.
    """

    def __init__(self, loop: AbstractEventLoop) -> None:
        self._loop = loop
        # What is called when the body is whole; None before its end, and once that is settled.
        self._keep: Callable[[], None] | None = None
        self._alarm: TimerHandle | None = None

    def begin(self, keep: Callable[[], None]) -> None:
        """The app has sent its last message; `keep` is called when the body is whole. Only the first call counts."""
        if self._alarm is None:
            self._keep = keep
            self._alarm = self._loop.call_later(_TAKEN_FOR_WHOLE, self._take_for_whole, context=Context())

    def returned(self) -> None:
        """The app has returned: what it has ended is whole."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._take_for_whole()

    def raised(self) -> bool:
        """The app has raised; whether the body had been taken for whole by then."""
        if self._alarm is None:
            return False
        self._alarm.cancel()
        keep, self._keep = self._keep, None
        return keep is None

    def _take_for_whole(self) -> None:
        keep, self._keep = self._keep, None
        if keep is not None:
            keep()
