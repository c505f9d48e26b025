"""Summaries of replicas in Redis: one key for each, beside the log, with a TTL and at most 16 KiB."""

from __future__ import annotations

from fastapi_cacheinval.bus.summary_codec import encode_summary
from fastapi_cacheinval.connections.client import Client, raising
from fastapi_cacheinval.core.summary import ReplicaSummary
from fastapi_cacheinval.errors import TierUnavailable

__all__ = ["RedisSummaries", "summary_key"]


def summary_key(prefix: str, replica: str) -> bytes:
    """The key of one replica's summary, in the slot of the log; `prefix` is the namespace's and holds no brace."""
    return f"{{{prefix}}}:replica:{replica}".encode()


class RedisSummaries:
    """`Summaries` over one client."""

    def __init__(self, client: Client, prefix: str) -> None:
        self._client = client
        self._prefix = prefix

    async def write(self, summary: ReplicaSummary, life: float) -> None:
        key, data = summary_key(self._prefix, summary.replica), encode_summary(summary)
        with raising(TierUnavailable):
            await self._client.command("SET", key, data, "PX", max(1, int(life * 1000)))

    async def drop(self, replica: str) -> None:
        with raising(TierUnavailable):
            await self._client.command("DEL", summary_key(self._prefix, replica))
