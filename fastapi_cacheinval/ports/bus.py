"""The port of purging: what the façade asks for, whether the log is in this process or shared."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from fastapi_cacheinval.core.log_types import LogEntry
from fastapi_cacheinval.core.replica import Replica
from fastapi_cacheinval.ports.log import Proposal

__all__ = ["Applied", "Bus", "BusState"]


class BusState(NamedTuple):
    """How a bus stands: whether it is in touch with its log, and how many purges have no number yet.

    `oldest` is since when the oldest of them waits, on the cache's clock; None where none does.
    """

    connected: bool
    queue_length: int
    oldest: float | None = None


class Applied(NamedTuple):
    """Every replica has applied a line: how many there are, and why it took longer than their word, if it did."""

    replicas: int
    reason: str | None = None


class Bus(Protocol):
    """Writes purges to the log and keeps a `Replica` up to it.

    A purge has its number when `publish` returns, and the replica has applied it. Errors of foreign
    clients never leave an adapter.
    """

    async def start(self, replica: Replica, *, serving: bool) -> None:
        """Begin on the running loop; who serves takes a lease, who only publishes does not. Later calls may add that.

        It does not wait for a log that cannot be reached, and does not raise for it.
        """
        ...

    async def flush(self) -> int:
        """Try to give what is queued its number, for a bounded time; how many purges are left without one."""
        ...

    async def stop(self) -> int:
        """Let go of the running loop's connections and tasks; how many purges are left without a number."""
        ...

    async def publish(self, proposal: Proposal) -> LogEntry:
        """Write one purge; raises `PurgeNotDelivered` where it could not be given a number now."""
        ...

    async def applied_by_all(self, line: LogEntry) -> Applied:
        """Wait until every replica with a live lease has applied a line.

        Raises `ReplicasUnknown` where that cannot be found out.
        """
        ...

    async def catch_up(self) -> bool:
        """Read all that is in the log by now; False where that could not be done in time."""
        ...

    def state(self) -> BusState:
        """How it stands now."""
        ...
