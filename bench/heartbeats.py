"""What heartbeats cost the server, with all that reading and writing them takes."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from bench.report import Options, Table, reached
from fastapi_cacheinval.bus.call import Call, LogKeys, Said, log_keys
from fastapi_cacheinval.bus.script import LUA
from tests.servers.valkey import Valkey, valkey

__all__ = ["heartbeats"]

_BOUND = 2.0
_QUIET, _FLOWING = _BOUND / 3, 0.45 * _BOUND
_MOST_SHARE = 0.1
_REPLICAS = 1_000


def _used(pid: int) -> float:
    """Seconds of processor time that a process has used, to the nanosecond."""
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(task.read_text(encoding="ascii").split()[0]) for task in tasks) / 1e9


def _packed(*parts: str | int | bytes) -> bytes:
    texts = [part if isinstance(part, bytes) else str(part).encode() for part in parts]
    return b"*%d\r\n" % len(texts) + b"".join(b"$%d\r\n%b\r\n" % (len(text), text) for text in texts)


def _beat(keys: LogKeys, replica: str, known: tuple[int, str, int, str], pending: Sequence[bytes] = ()) -> list[bytes]:
    term, term_nonce, seq, nonce = known
    call = Call(
        replica=replica,
        term=term,
        term_nonce=term_nonce,
        seq=seq,
        nonce=nonce,
        fresh=f"{1:016x}",
        bound=_BOUND,
        channel=keys.channel,
        pending=tuple(pending),
    )
    return [part if isinstance(part, bytes) else str(part).encode() for part in (4, *keys[:4], *call.arguments())]


def _each(server: Valkey, connections: Sequence[socket.socket], command: Callable[[str], bytes]) -> float:
    """The server's microseconds for one command on each connection, one after the other."""
    commands = [command(f"{number:016x}") for number in range(len(connections))]
    before = _used(server.pid)
    for connection, sent in zip(connections, commands, strict=True):
        connection.sendall(sent)
        connection.recv(4096)
    return (_used(server.pid) - before) / len(connections) * 1e6


def heartbeats(options: Options) -> Table:
    """Heartbeats on as many connections as there are replicas, and bare commands in turn."""
    count, rounds = options.pick(_REPLICAS, 20), options.pick(7, 1)
    keys = log_keys("measured")
    with valkey() as server:
        digest = server.client.script_load(LUA)
        reply: bytes = server.client.execute_command(
            "EVALSHA", digest, *_beat(keys, "first", (0, "", 0, "")), NEVER_DECODE=True
        )
        known = Said.read(reply)[1:5]
        connections = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(count)]
        found: tuple[list[float], list[float]] = ([], [])
        for _ in range(rounds):
            found[0].append(
                _each(server, connections, lambda name: _packed("EVALSHA", digest, *_beat(keys, name, known)))
            )
            found[1].append(_each(server, connections, lambda name: _packed("HSET", "bare", name, "x" * 30)))
        for connection in connections:
            connection.close()
    beat, bare = median(found[0]), median(found[1])
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
        f"`staleness_bound` {_BOUND:g} s, so a replica asks each {_QUIET:.2f} s, or {_FLOWING:.2f} s while it hears of purges.",
        ("what", "a second", "µs each", "bare", "of a core", "target", "reached"),
        rows,
    )
