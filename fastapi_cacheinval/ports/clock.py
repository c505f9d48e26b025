"""The port of time: everything in the cache that waits or measures goes through it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

__all__ = ["Alarm", "Clock"]


class Alarm(Protocol):
    """Something that will ring once."""

    def cancel(self) -> None:
        """Keep it from ringing; harmless when it has."""
        ...


class Clock(Protocol):
    """Seconds that only grow and that count the time a host is suspended."""

    def now(self) -> float:
        """Seconds since an arbitrary moment."""
        ...

    def wall(self) -> float:
        """Seconds since the epoch, for what is written in dates; nothing is decided by it but dates."""
        ...

    def call_later(self, seconds: float, ring: Callable[[], object]) -> Alarm:
        """Call `ring` on the running loop after that time."""
        ...
