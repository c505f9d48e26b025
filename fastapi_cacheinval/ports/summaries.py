"""The port of summaries: where a replica leaves what it says of itself."""

from __future__ import annotations

from typing import Protocol

from fastapi_cacheinval.core.summary import ReplicaSummary

__all__ = ["Summaries"]


class Summaries(Protocol):
    """The summaries of a namespace, as one event loop reaches them.

    Both calls raise `TierUnavailable`, and nothing else, where the store cannot be reached or refuses.
    """

    async def write(self, summary: ReplicaSummary, life: float) -> None:
        """Leave a summary for so many seconds, in place of the replica's last one."""
        ...

    async def drop(self, replica: str) -> None:
        """Take the summary of a replica away."""
        ...
