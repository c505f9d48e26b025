"""Reading the replicas of a namespace from Redis; nothing is written, and a namespace that nobody uses stays unused."""

from __future__ import annotations

from fastapi_cacheinval.bus.call import log_keys
from fastapi_cacheinval.bus.entries import by_name
from fastapi_cacheinval.bus.summaries import summary_key
from fastapi_cacheinval.bus.summary_codec import decode_summary
from fastapi_cacheinval.connections.client import Client, raising
from fastapi_cacheinval.core.fleet import Fleet, LogState, SeenReplica, acknowledgement_of
from fastapi_cacheinval.errors import TierUnavailable

__all__ = ["RedisFleet"]

# No more replicas than this are read.
_MOST_REPLICAS = 1_000
_PAGE = 50


class RedisFleet:
    """The replicas of one namespace over one client; `prefix` is the namespace as it stands in keys, without a brace.

    It needs the commands TIME, HMGET, HGETALL, XLEN, ZCARD and MGET, and no script.
    """

    def __init__(self, client: Client, namespace: str, prefix: str) -> None:
        self._client = client
        self._namespace = namespace
        self._prefix = prefix
        self._keys = log_keys(prefix)

    async def read(self) -> Fleet:
        """All of them now; raises `TierUnavailable`."""
        with raising(TierUnavailable):
            return await self._read()

    async def _read(self) -> Fleet:
        seconds, micros = await self._client.about(self._keys.state, "TIME")
        now = int(seconds) + int(micros) / 1_000_000
        state = await self._client.command("HMGET", self._keys.state, "term", "seq", "opened")
        if state[0] is None:
            return Fleet(self._namespace, now, None)
        term, seq, opened = (int(value or 0) for value in state)
        lines = int(await self._client.command("XLEN", self._keys.log))
        tags = int(await self._client.command("ZCARD", self._keys.tags))
        # One member says which term the tags are of.
        log = LogState(term, seq, opened / 1_000_000, lines, max(0, tags - 1))
        acks = by_name(await self._client.command("HGETALL", self._keys.acks))
        names = [name for name in acks if name != b"!"][:_MOST_REPLICAS]
        summaries: list[bytes | None] = []
        for begin in range(0, len(names), _PAGE):
            keys = [summary_key(self._prefix, _text(name)) for name in names[begin : begin + _PAGE]]
            summaries += await self._client.command("MGET", keys[0], *keys[1:])
        replicas = [_seen(_text(name), acks[name], now, data) for name, data in zip(names, summaries, strict=True)]
        return Fleet(self._namespace, now, log, tuple(sorted(replicas, key=lambda each: (not each.live, each.name))))


def _seen(name: str, ack: bytes, now: float, data: bytes | None) -> SeenReplica:
    acknowledged = acknowledgement_of(ack)
    silent = None if acknowledged is None else max(0.0, now - acknowledged.at)
    summary = None if data is None else decode_summary(data)
    return SeenReplica(name, acknowledged, silent, summary)


def _text(name: bytes) -> str:
    return name.decode("utf-8", "replace")
