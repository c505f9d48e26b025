"""The port of what can be counted."""

from __future__ import annotations

from typing import Protocol

from fastapi_cacheinval.core.outcome import Outcome, Reason

__all__ = ["Telemetry"]


class Telemetry(Protocol):
    """Hears what happened. No call awaits, raises or does I/O; any thread may call."""

    def answered(self, outcome: Outcome, route: str | None) -> None:
        """A cacheable request was answered."""
        ...

    def forwarded(self, reason: Reason, route: str | None) -> None:
        """A cacheable request, or a background refresh, went on to the app."""
        ...

    def filled(self, seconds: float, route: str | None, outcome: str) -> None:
        """A forward for a cached route ended: `stored`, `refused`, `failed` or `superseded` by a purge."""
        ...

    def refreshed(self, outcome: str) -> None:
        """A background refresh ended: `stored`, `refused`, `failed`, `superseded`, `timeout` or `dropped`."""
        ...

    def l2(self, event: str) -> None:
        """L2: `hit`, `miss`, `outdated`, `write`, `unwritable`, `unavailable`, `unreadable-` and why."""
        ...

    def l2_took(self, operation: str, seconds: float, outcome: str) -> None:
        """One `get` or `set` of L2 took so long, and is `done` or has `failed`."""
        ...

    def purged(self, event: str, tags: int, *, soft: bool, seconds: float | None = None) -> None:
        """A purge was `published`, `applied`, `missed` or `queued`; applied so long after the log took it, if known."""
        ...
