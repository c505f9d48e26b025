"""What `cacheinval doctor` finds out about a server and a namespace, as one frozen value."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi_cacheinval.core.fleet import Fleet

__all__ = ["Access", "Examination", "Server"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """The server that has the log, as INFO and CONFIG tell of it; None for what it does not tell.

    `kind` is `valkey` or `redis`, `version` its numbers. `role` is `master` or `slave`. Sizes are bytes. `persistent`
    is whether it writes its data to a disk in any way, `write_errors` which of the ways failed last. `min_replicas` is
    `min-replicas-to-write`, `replicas` how many servers follow it.
    """

    kind: str = "redis"
    version: tuple[int, ...] | None = None
    role: str | None = None
    persistent: bool | None = None
    policy: str | None = None
    max_memory: int | None = None
    used_memory: int | None = None
    min_replicas: int | None = None
    replicas: int | None = None
    write_errors: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """What the user of the URL may do.

    `user` is its name, `refused` the commands that the cache needs and it may not run. `known` is False where the
    server does not say what is allowed.
    """

    user: str | None = None
    known: bool = True
    refused: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """All that the rules look at.

    `unreadable` says why the replicas could not be read; empty where they were. `round_trips` are seconds of some
    calls, `clock_ahead` is by how many seconds this machine's clock is ahead of the server's.
    """

    server: Server
    access: Access
    fleet: Fleet
    unreadable: str = ""
    round_trips: tuple[float, ...] = ()
    clock_ahead: float | None = None

    @property
    def latency(self) -> float | None:
        """The median of the round trips, in seconds."""
        ordered = sorted(self.round_trips)
        return ordered[len(ordered) // 2] if ordered else None
