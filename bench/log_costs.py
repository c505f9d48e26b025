"""The processor time that the purge log costs the server: heartbeats and purges, with many tags and many replicas."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import NamedTuple

from bench.plain_log import BOUND, PlainLog, packed
from bench.report import Options, Table, reached
from tests.servers.valkey import Valkey

__all__ = ["log_costs"]

_PURGE_US = 100.0
_BEAT_SECONDS = BOUND / 3


def _script_us(server: Valkey, calls: int, call: Callable[[], object]) -> float:
    """The server's own time for one call of a script, in microseconds."""
    server.execute("CONFIG", "RESETSTAT")
    for _ in range(calls):
        call()
    return float(server.info("commandstats")["cmdstat_evalsha"]["usec_per_call"])


def _subscribed(server: Valkey, channel: bytes, count: int) -> list[socket.socket]:
    """Connections that subscribe and never read: the kernel's buffers have room for all messages."""
    sockets = []
    for _ in range(count):
        connection = socket.create_connection(("127.0.0.1", server.port))
        connection.sendall(packed("SUBSCRIBE", channel))
        sockets.append(connection)
    return sockets


class _Costs(NamedTuple):
    """Microseconds in the server of each kind of call, and bytes there of each purged tag."""

    beat: float
    purge: float
    beat_of_many: float
    purge_of_many: float
    heard: float
    tag_bytes: float


def _measure(server: Valkey, calls: int, tags: int, subscribers: int) -> _Costs:
    server.execute("FLUSHALL")
    log = PlainLog(server)
    log.call()
    beat = _script_us(server, calls, log.call)
    purge = _script_us(server, calls, lambda: log.call(b"product:42"))
    for first in range(0, tags, 1_000):
        log.call(*(b"product:%d" % number for number in range(first, first + 1_000)))
    purge_of_many = _script_us(server, calls, lambda: log.call(b"product:42"))
    beat_of_many = _script_us(server, calls, log.call)
    tag_bytes = int(server.execute("MEMORY", "USAGE", log.keys.tags.decode(), "SAMPLES", "0")) / tags
    listening = _subscribed(server, log.keys.channel, subscribers)
    while int(server.execute("PUBSUB", "NUMSUB", log.keys.channel.decode())[1]) < subscribers:
        time.sleep(0.01)
    heard = _script_us(server, min(calls, 100), lambda: log.call(b"product:42"))
    for connection in listening:
        connection.close()
    log.close()
    return _Costs(beat, purge, beat_of_many, purge_of_many, heard, tag_bytes)


def log_costs(server: Valkey, options: Options) -> list[Table]:
    """The cost of each kind of call, and what follows from it for a thousand replicas and a million tags."""
    tags, calls, many = options.pick(1_000_000, 1_000), options.pick(500, 20), options.pick(1_000, 20)
    costs = _measure(server, calls, tags, many)
    beats, thousand_ms = 1_000 / _BEAT_SECONDS, costs.heard / many
    target = f"under {_PURGE_US:.0f}"
    of_many = f"{tags:,} tags known"
    return [
        Table(
            "What the log costs the server",
            f"The server's own time for one call of the script (`INFO commandstats`), {calls} calls each; with few and "
            f"with {tags:,} purged tags, and with {many:,} subscribers.",
            ("call", "µs in the server", "target", "reached"),
            [
                ("heartbeat", f"{costs.beat:.0f}", "", ""),
                ("purge of a tag", f"{costs.purge:.0f}", target, reached(costs.purge < _PURGE_US)),
                (
                    f"purge of a tag, {of_many}",
                    f"{costs.purge_of_many:.0f}",
                    target,
                    reached(costs.purge_of_many < _PURGE_US),
                ),
                (f"heartbeat, {of_many}", f"{costs.beat_of_many:.0f}", "", ""),
                (f"purge heard by {many:,} subscribers", f"{costs.heard:.0f}", "", ""),
            ],
        ),
        Table(
            "A thousand replicas, a million tags",
            "Computed from the parts measured above: each replica sends a heartbeat every two thirds of a second "
            "(`staleness_bound` 2 s), and hears every purge.",
            ("what", "cost", "from", "reached"),
            [
                (
                    "heartbeats of 1,000 replicas",
                    f"{beats * costs.beat_of_many / 1e6:.1%} of the server's one thread",
                    f"{beats:.0f}/s of {costs.beat_of_many:.0f} µs",
                    "",
                ),
                (
                    "a purge to 1,000 replicas",
                    f"{thousand_ms:.2f} ms of it, so at most {1_000 / thousand_ms:.0f}/s",
                    f"{many:,} subscribers",
                    "",
                ),
                (
                    "a million purged tags in the server",
                    f"{costs.tag_bytes * 1e6 / 2**20:.0f} MiB",
                    f"{costs.tag_bytes:.0f} B each, of {tags:,}",
                    "",
                ),
            ],
        ),
    ]
