"""A primary and a replica, with failovers that lose writes."""

from __future__ import annotations

import contextlib
from collections.abc import Generator

from tests.servers.proxy import Proxy, tcp_proxy
from tests.servers.valkey import Valkey, valkey
from tests.servers.waiting import until

# Nobody listens there, and nobody without privileges can.
_NOWHERE = 1


def catch_up(replica: Valkey, primary: Valkey) -> None:
    """Wait until a replica follows a primary and has all of its writes."""

    def equal() -> bool:
        ahead, behind = primary.info("replication"), replica.info("replication")
        return (
            behind["role"] == "slave"
            and behind["master_link_status"] == "up"
            and behind["master_replid"] == ahead["master_replid"]
            and behind["slave_repl_offset"] >= ahead["master_repl_offset"]
        )

    until(equal, f"{replica} has all writes of {primary}", detail=lambda: replica.output)


class Replicated:
    """`first` is the primary to begin with, `second` its replica; clients use `url`, which follows the primary."""

    def __init__(self, first: Valkey, second: Valkey, address: Proxy) -> None:
        self.first = first
        self.second = second
        self.address = address
        self.primary = first
        self.replica = second

    @property
    def url(self) -> str:
        """One address for the life of the pair; a failover resets its connections and leads them to the new primary."""
        return self.address.url

    def follow(self) -> None:
        """Have the replica follow the primary, and wait until it has all of its writes."""
        self.replica.execute("REPLICAOF", "127.0.0.1", self.primary.port)
        self.catch_up()

    def catch_up(self) -> None:
        """Wait until the replica has all writes of the primary."""
        catch_up(self.replica, self.primary)

    def cut(self) -> None:
        """Part the two, once the replica has all writes: what is written to the primary from now on is lost by `promote`.

        The replica keeps its data and its role.
        """
        self.catch_up()
        self.replica.execute("REPLICAOF", "127.0.0.1", _NOWHERE)

    def promote(self, *, kill: bool = True) -> None:
        """Make the replica the primary and lead clients to it; with `kill=False` the old one goes on: a split brain.

        The old one is then still to be reached at its own URL, and takes writes.
        """
        if kill:
            self.primary.kill()
        self.replica.execute("REPLICAOF", "NO", "ONE")
        self.primary, self.replica = self.replica, self.primary
        self.address.target = self.primary.port
        self.address.reset()


@contextlib.contextmanager
def replicated() -> Generator[Replicated]:
    """A primary, a replica that has caught up with it, and one address for clients."""
    with valkey() as first, valkey() as second, tcp_proxy(first.port) as address:
        pair = Replicated(first, second, address)
        pair.follow()
        yield pair
