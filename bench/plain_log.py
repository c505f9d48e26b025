"""The purge log of one server, called by a plain client: what its script costs, without a cache around it."""

from __future__ import annotations

from typing import Any

import redis

from fastapi_cacheinval.bus.call import Call, Said, log_keys
from fastapi_cacheinval.bus.entries import encode_payload
from fastapi_cacheinval.bus.script import LUA
from tests.servers.valkey import Valkey

__all__ = ["BOUND", "PlainLog", "packed"]

BOUND = 2.0
"""The staleness bound of the calls, in seconds."""


def packed(*words: str | int | bytes) -> bytes:
    """A command as it goes over the connection."""
    texts = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    return b"*%d\r\n" % len(texts) + b"".join(b"$%d\r\n%b\r\n" % (len(text), text) for text in texts)


class PlainLog:
    """The script of the purge log, called as a replica that has read the log to its end."""

    def __init__(self, server: Valkey) -> None:
        self.keys = log_keys("measured")
        self.client: Any = redis.Redis(port=server.port)
        self._digest: Any = self.client.script_load(LUA)
        self._known: tuple[int, str, int, str] = (0, "", 0, "")

    def command(
        self, *tags: bytes, replica: str = "writer", pending: tuple[bytes, ...] = ()
    ) -> list[bytes | str | int]:
        """The words of a purge of these tags, or of a heartbeat if there are none."""
        term, term_nonce, seq, nonce = self._known
        call = Call(
            replica=replica,
            term=term,
            term_nonce=term_nonce,
            seq=seq,
            nonce=nonce,
            fresh=f"{seq + 1:016x}",
            bound=BOUND,
            channel=self.keys.channel,
            payload=encode_payload(tuple(tag.decode() for tag in tags), soft=False) if tags else b"",
            tags=tags,
            pending=pending,
        )
        return ["EVALSHA", self._digest, 4, *self.keys[:4], *call.arguments()]

    def call(self, *tags: bytes, pending: tuple[bytes, ...] = ()) -> Said:
        """Send such a purge or heartbeat; `pending` names the set of replicas that the purge waits for."""
        said = Said.read(self.client.execute_command(*self.command(*tags, pending=pending)))
        self._known = said[1:5]
        return said

    def close(self) -> None:
        """Close the connection."""
        self.client.close()
