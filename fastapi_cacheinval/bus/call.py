"""The keys of the purge log, the arguments of its script and its reply, typed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgpack

from fastapi_cacheinval.bus.script import PAGE_BYTES

__all__ = ["Call", "LogKeys", "Said", "log_keys"]


class LogKeys(NamedTuple):
    """The names of one log, which share a hash tag: its keys, its channel, and how the channels of waiters begin."""

    state: bytes
    log: bytes
    tags: bytes
    acks: bytes
    channel: bytes
    applied: bytes

    def told(self, waiter: str) -> bytes:
        """The channel on which a replica hears that a line of its own has been applied by every other."""
        return b"%b:%b" % (self.applied, waiter.encode())

    def pending(self, waiter: str, nonce: str) -> bytes:
        """The set of the replicas that still have to say that they have applied such a line."""
        return b"%b:%b" % (self.told(waiter), nonce.encode())


def log_keys(prefix: str) -> LogKeys:
    """The keys under a prefix that holds no brace."""
    return LogKeys(*(f"{{{prefix}}}:{name}".encode() for name in ("state", "log", "tags", "acks", "purges", "applied")))


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """The arguments of one call of the script.

    `replica` is the caller's id, empty for one that only publishes and takes no lease; `term` to `nonce` are what it
    has read; `fresh` is a nonce that nobody has used, for the line or the term that the call makes; `bound` seconds of
    a lease, `widest` the longest bound of others that it has been told of, in microseconds; `life` seconds that
    something stored may live. The log keeps `most_lines` and `most_bytes`, and a reply has `page_bytes` of what was
    missed. A line has a `payload` and its `tags`, a heartbeat neither.
    `pending` names sets of replicas that still have to apply a line. A line that somebody waits for names its own set,
    which the call fills. A heartbeat names the sets that the caller leaves, because it has applied their lines.
    """

    replica: str
    term: int
    term_nonce: str
    seq: int
    nonce: str
    fresh: str
    bound: float
    widest: int = 0
    channel: bytes
    most_lines: int = 10_000
    most_bytes: int = 8_388_608
    page_bytes: int = PAGE_BYTES
    most_tags: int = 1_000_000
    life: float = 60.0
    soft: bool = False
    payload: bytes = b""
    tags: tuple[bytes, ...] = ()
    pending: tuple[bytes, ...] = ()

    def answered_by(self, reply: Any) -> bool:
        """Whether a reply is to this call."""
        parts: list[Any] = reply if type(reply) is list else [reply]  # pyright: ignore[reportUnknownVariableType]
        head = next(iter(parts), None)
        return isinstance(head, bytes) and head.endswith(b" %b" % self.fresh.encode())

    def arguments(self) -> list[bytes | str | int]:
        """`ARGV`, in its order."""
        head = (self.replica, self.term, self.term_nonce, self.seq, self.nonce, self.fresh)
        # A few arguments in place of many, which take a client long to write.
        arguments: list[bytes | str | int] = [
            " ".join(map(str, (*head, int(self.bound * 1_000_000), self.widest, int(self.life)))),
            f"{self.most_lines} {self.most_bytes} {self.page_bytes} {self.most_tags}",
        ]
        if not self.payload:
            return [*arguments, b"", *self.pending] if self.pending else arguments
        members: list[int | bytes] = [0] * (2 * len(self.tags))
        kind = b"s" if self.soft else b"h"
        members[1::2] = [kind + tag for tag in self.tags]
        packed = msgpack.packb(members, use_bin_type=False)
        return [*arguments, self.payload, self.channel, packed, *self.pending]


class Said(NamedTuple):
    """What the script replies.

    `verdict` is 0 where the caller has read everything, 1 where lines were `missed`, 2 where it has to start anew from
    `seq`; `at` is microseconds of the server's clock; `more` says that more than `missed` was. `pending` is how many
    others are to say that they have applied the line, -1 where it is not known who they are. `widest` is the longest
    bound of a lease that the log knows of, in microseconds. The reply ends with the call's own nonce, which tells it
    from the reply to another call.
    """

    verdict: int
    term: int
    term_nonce: str
    seq: int
    nonce: str
    at: int
    more: bool
    pending: int
    widest: int
    missed: Sequence[bytes] = ()

    @classmethod
    def read(cls, reply: Any) -> Said:
        """Raises `ValueError` for what is no reply of this script."""
        head, missed = (reply, ()) if isinstance(reply, bytes) else reply
        verdict, term, term_nonce, seq, nonce, at, more, pending, widest, _ = head.decode("ascii").split(" ")
        counts = int(pending), int(widest)
        return cls(int(verdict), int(term), term_nonce, int(seq), nonce, int(at), more != "0", *counts, missed)
