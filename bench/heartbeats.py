"""The processor time that heartbeats cost the server, with the reading and the writing of them."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from bench.plain_log import BOUND, PlainLog, packed
from bench.report import Options, Table, reached
from tests.servers.valkey import Valkey, valkey

__all__ = ["heartbeats"]

# Seconds between two heartbeats of a replica: while nobody purges, and while purges come.
_QUIET, _FLOWING = BOUND / 3, 0.45 * BOUND
_MOST_SHARE = 0.1
_TAG = b"product:42"
_REPLICAS = 1_000
# The default of the server's `maxclients`.
_MOST_CONNECTIONS = 10_000


def _used(pid: int) -> float:
    """Seconds of processor time that a process has used, to the nanosecond."""
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(task.read_text(encoding="ascii").split()[0]) for task in tasks) / 1e9


def _connections(server: Valkey, count: int) -> list[socket.socket]:
    return [socket.create_connection(("127.0.0.1", server.port)) for _ in range(count)]


def _each(server: Valkey, connections: Sequence[socket.socket], command: Callable[[str], bytes]) -> float:
    """The server's microseconds for one command, sent once on each connection in turn."""
    commands = [command(f"{number:016x}") for number in range(len(connections))]
    before = _used(server.pid)
    for connection, sent in zip(connections, commands, strict=True):
        connection.sendall(sent)
        connection.recv(4096)
    return (_used(server.pid) - before) / len(connections) * 1e6


def heartbeats(options: Options) -> list[Table]:
    """One table for a thousand replicas, and one that computes the cost of other numbers of replicas from it."""
    count, rounds = options.pick(_REPLICAS, 20), options.pick(7, 1)
    beats: list[float] = []
    bares: list[float] = []
    waits: list[float] = []
    with valkey() as server:
        log = PlainLog(server)
        log.call(_TAG)
        # Make the term an old one, because a purge in a young term waits for no replica.
        log.client.hset(log.keys.state, "opened", 1)
        connections = _connections(server, count)

        def beat(replica: str) -> bytes:
            return packed(*log.command(replica=replica))

        for _ in range(rounds):
            beats.append(_each(server, connections, beat))
            bares.append(_each(server, connections, lambda name: packed("HSET", "bare", name, "x" * 30)))
        alone = _purged(server, log, [], rounds)
        # Every replica has a lease now.
        for number in range(rounds):
            _each(server, connections, beat)
            before = _used(server.pid)
            pending = log.call(_TAG, pending=(log.keys.pending("writer", f"{number}"),)).pending
            waits.append((_used(server.pid) - before) / pending * 1e6)
        for connection in connections:
            connection.sendall(packed("SUBSCRIBE", log.keys.channel))
            connection.recv(4096)
        purges = [(took - median(alone)) / count for took in _purged(server, log, connections, rounds)]
        for connection in connections:
            connection.close()
        log.close()
    took, bare = median(beats), median(bares)
    return [_thousand(took, bare, count, rounds), _more(took, max(0.0, median(purges)), max(0.0, median(waits)))]


def _purged(server: Valkey, log: PlainLog, heard: Sequence[socket.socket], rounds: int) -> list[float]:
    """The server's microseconds for each purge, if these connections subscribe to the log."""
    taken: list[float] = []
    for _ in range(rounds):
        before = _used(server.pid)
        log.call(_TAG)
        for connection in heard:
            connection.recv(4096)
        taken.append((_used(server.pid) - before) * 1e6)
    return taken


def _thousand(beat: float, bare: float, count: int, rounds: int) -> Table:
    rows = [
        (
            f"{_REPLICAS:,} replicas, {what}",
            f"{_REPLICAS / pace:,.0f}",
            f"{beat:.0f}",
            f"{bare:.0f}",
            f"{_REPLICAS / pace * beat / 1e6:.1%}",
            f"at most {_MOST_SHARE:.0%} of a core",
            reached(_REPLICAS / pace * beat / 1e6 <= _MOST_SHARE),
        )
        for what, pace in (("nothing is purged", _QUIET), ("purges come", _FLOWING))
    ]
    return Table(
        "Heartbeats of a thousand replicas",
        "The server's processor time for one heartbeat, reading and writing included, on "
        f"{count:,} connections in turn, and for a bare `HSET`; medians of {rounds} rounds. "
        f"`staleness_bound` {BOUND:g} s, so a replica sends one every {_QUIET:.2f} s, and every "
        f"{_FLOWING:.2f} s while purges come.",
        ("what", "a second", "µs each", "bare", "of a core", "target", "reached"),
        rows,
    )


def _more(beat: float, purge: float, wait: float) -> Table:
    rows: list[tuple[str, ...]] = []
    for count in (100, 1_000, 3_000, 10_000, 30_000):
        idle = 1 - count / _QUIET * beat / 1e6
        rows.append(
            (
                f"{count:,}",
                f"{2 * count:,}",
                f"{1 - idle:.0%}",
                f"{count * purge / 1000:.1f}",
                f"{max(0.0, idle) * 1e6 / (count * purge):,.0f}" if purge else "",
                f"{count * (wait + purge + beat) / 1000:.0f}",
                f"{_MOST_CONNECTIONS:,} connections, half a core",
                reached(2 * count <= _MOST_CONNECTIONS and idle >= 0.5),
            )
        )
    return Table(
        "More replicas on one server",
        f"Computed from measured parts of the server's processor time: a heartbeat {beat:.0f} µs, a message "
        f"{purge:.1f} µs for each subscriber, a replica that a purge waits for {wait:.1f} µs. Each replica has two "
        f"connections. A server takes {_MOST_CONNECTIONS:,} by default.",
        (
            "replicas",
            "connections",
            "heartbeats, of a core",
            "ms a purge",
            "purges a second",
            "ms a wait",
            "limit",
            "reached",
        ),
        rows,
    )
