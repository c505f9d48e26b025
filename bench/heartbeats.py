"""What heartbeats cost the server, with all that reading and writing them takes."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import redis

from bench.report import Options, Table, reached
from fastapi_cacheinval.bus.call import Call, Said, log_keys
from fastapi_cacheinval.bus.entries import encode_payload
from fastapi_cacheinval.bus.script import LUA
from tests.servers.valkey import Valkey, valkey

__all__ = ["heartbeats"]

_BOUND = 2.0
_QUIET, _FLOWING = _BOUND / 3, 0.45 * _BOUND
_MOST_SHARE = 0.1
_REPLICAS = 1_000
# `maxclients`, as servers come.
_MOST_CONNECTIONS = 10_000


def _used(pid: int) -> float:
    """Seconds of processor time that a process has used, to the nanosecond."""
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(task.read_text(encoding="ascii").split()[0]) for task in tasks) / 1e9


def _packed(*parts: str | int | bytes) -> bytes:
    texts = [part if isinstance(part, bytes) else str(part).encode() for part in parts]
    return b"*%d\r\n" % len(texts) + b"".join(b"$%d\r\n%b\r\n" % (len(text), text) for text in texts)


class _Log:
    """The log's script on one server, called as many replicas would."""

    def __init__(self, server: Valkey) -> None:
        self.server = server
        self.keys = log_keys("measured")
        self._client: Any = redis.Redis(port=server.port)
        self._digest: Any = self._client.script_load(LUA)
        self._known: tuple[int, str, int, str] = (0, "", 0, "")
        self.purge()
        # Not a young term, in which nobody is waited for.
        self._client.hset(self.keys.state, "opened", 1)

    def _command(self, replica: str, **more: Any) -> bytes:
        term, term_nonce, seq, nonce = self._known
        fresh = f"{seq + 1:016x}"
        call = Call(
            replica=replica,
            term=term,
            term_nonce=term_nonce,
            seq=seq,
            nonce=nonce,
            fresh=fresh,
            bound=_BOUND,
            channel=self.keys.channel,
            **more,
        )
        return _packed("EVALSHA", self._digest, 4, *self.keys[:4], *call.arguments())

    def beat(self, replica: str) -> bytes:
        """The bytes of a heartbeat."""
        return self._command(replica)

    def purge(self, *pending: bytes) -> Said:
        """One purge of one tag, for which the members of a set are waited."""
        payload = encode_payload(("product:42",), soft=False)
        with socket.create_connection(("127.0.0.1", self.server.port)) as connection:
            connection.sendall(self._command("writer", payload=payload, tags=(b"product:42",), pending=pending))
            head = connection.recv(4096).split(b"\r\n")[1]
        said = Said.read(head)
        self._known = said[1:5]
        return said

    def close(self) -> None:
        self._client.close()


def _connections(server: Valkey, count: int) -> list[socket.socket]:
    return [socket.create_connection(("127.0.0.1", server.port)) for _ in range(count)]


def _each(server: Valkey, connections: Sequence[socket.socket], command: Callable[[str], bytes]) -> float:
    """The server's microseconds for one command on each connection, one after the other."""
    commands = [command(f"{number:016x}") for number in range(len(connections))]
    before = _used(server.pid)
    for connection, sent in zip(connections, commands, strict=True):
        connection.sendall(sent)
        connection.recv(4096)
    return (_used(server.pid) - before) / len(connections) * 1e6


def heartbeats(options: Options) -> list[Table]:
    """Heartbeats on as many connections as there are replicas, bare commands in turn, and what follows from that."""
    count, rounds = options.pick(_REPLICAS, 20), options.pick(7, 1)
    beats: list[float] = []
    bares: list[float] = []
    purges: list[float] = []
    waits: list[float] = []
    with valkey() as server:
        log = _Log(server)
        connections = _connections(server, count)
        for _ in range(rounds):
            beats.append(_each(server, connections, log.beat))
            bares.append(_each(server, connections, lambda name: _packed("HSET", "bare", name, "x" * 30)))
        alone = _purged(log, [], rounds)
        # All of them have a lease by now.
        for number in range(rounds):
            _each(server, connections, log.beat)
            before = _used(server.pid)
            pending = log.purge(log.keys.pending("writer", f"{number}")).pending
            waits.append((_used(server.pid) - before) / pending * 1e6)
        for connection in connections:
            connection.sendall(_packed("SUBSCRIBE", log.keys.channel))
            connection.recv(4096)
        purges = [(took - median(alone)) / count for took in _purged(log, connections, rounds)]
        for connection in connections:
            connection.close()
        log.close()
    beat, bare = median(beats), median(bares)
    return [_thousand(beat, bare, count, rounds), _more(beat, max(0.0, median(purges)), max(0.0, median(waits)))]


def _purged(log: _Log, heard: Sequence[socket.socket], rounds: int) -> list[float]:
    """The server's microseconds for purges that all connections hear."""
    taken: list[float] = []
    for _ in range(rounds):
        before = _used(log.server.pid)
        log.purge()
        for connection in heard:
            connection.recv(4096)
        taken.append((_used(log.server.pid) - before) * 1e6)
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
        f"`staleness_bound` {_BOUND:g} s, so a replica asks each {_QUIET:.2f} s, while purges come {_FLOWING:.2f} s.",
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
        f"{purge:.1f} µs for each subscriber, a place among those who are waited for {wait:.1f} µs. Each replica has "
        f"two connections; a server takes {_MOST_CONNECTIONS:,} if it is not told otherwise.",
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
