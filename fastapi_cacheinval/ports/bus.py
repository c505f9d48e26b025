"""The port of the purge log."""

from __future__ import annotations

from typing import Protocol

from fastapi_cacheinval.core.replica import Line, Replica

__all__ = ["Bus"]


class Bus(Protocol):
    """Writes purges to the log and keeps a `Replica` up to it.

    A purge has its number when `publish` returns, and the replica has applied it. Errors of foreign
    clients never leave an adapter.
    """

    async def start(self, replica: Replica) -> None:
        """Begin to keep the replica up to the log; it may be handed over from when its lease is live."""
        ...

    async def stop(self) -> None:
        """Let go of connections and tasks; the bus may be started again, on another loop too."""
        ...

    async def publish(self, tags: tuple[str, ...], *, soft: bool) -> Line:
        """Write one purge; raises `PurgeNotDelivered` where it could not be given a number."""
        ...
