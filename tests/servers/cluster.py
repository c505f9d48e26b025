"""A cluster of three primaries, and slots that move from one to another while it works."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import Any

from redis.crc import key_slot
from redis.exceptions import ResponseError

from tests.servers.ports import free_port
from tests.servers.valkey import Setting, Valkey, valkey
from tests.servers.waiting import until

_NODES = 3
_SLOTS = 16384
_MIGRATE_SECONDS = 5


class Cluster:
    """The nodes of a cluster, each a primary with a third of the slots to begin with."""

    def __init__(self, nodes: list[Valkey]) -> None:
        self.nodes = nodes

    @property
    def url(self) -> str:
        """One of the nodes, from which a client learns of the others."""
        return self.nodes[0].url

    @staticmethod
    def slot_of(key: str) -> int:
        """The slot of a key; the part in braces decides, if there is one."""
        return key_slot(key.encode())

    def owner(self, slot: int) -> Valkey:
        """The node that all nodes name as the owner of a slot; fails while they differ."""
        (port,) = {self._owner_seen_by(node, slot) for node in self.nodes if node.child.alive}
        (found,) = [node for node in self.nodes if node.port == port]
        return found

    def other_than(self, owner: Valkey) -> Valkey:
        """A node to move a slot to."""
        return next(node for node in self.nodes if node is not owner and node.child.alive)

    def move_slot(self, slot: int, to: Valkey, *, atomically: bool = False) -> None:
        """Move a slot with its keys, and wait until all nodes know: key by key, or at once as Valkey 9 can."""
        if atomically:
            source = self.owner(slot)
            source.execute("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", self._id(to))
            self._wait_for_owner(slot, to)
        else:
            with self.moving_slot(slot, to):
                pass

    @contextlib.contextmanager
    def moving_slot(self, slot: int, to: Valkey) -> Generator[Valkey]:
        """A slot under way, key by key: inside the block all keys have moved and the old owner still has the slot.

        The old owner, which it yields, answers ASK to what has moved or is missing. When the block ends the slot is
        the new owner's, and all nodes know.
        """
        source = self.owner(slot)
        to.execute("CLUSTER", "SETSLOT", slot, "IMPORTING", self._id(source))
        source.execute("CLUSTER", "SETSLOT", slot, "MIGRATING", self._id(to))
        while keys := source.execute("CLUSTER", "GETKEYSINSLOT", slot, 100):
            source.execute("MIGRATE", "127.0.0.1", to.port, "", 0, 1000 * _MIGRATE_SECONDS, "KEYS", *keys)
        yield source
        for node in [to, source, *(other for other in self.nodes if other not in {to, source})]:
            node.execute("CLUSTER", "SETSLOT", slot, "NODE", self._id(to))
        self._wait_for_owner(slot, to)

    @contextlib.contextmanager
    def replica_of(self, primary: Valkey, *, node_timeout: float = 1.0) -> Generator[Valkey]:
        """One more node, which replicates a primary, and has caught up."""
        config = _config(free_port(), node_timeout, full_coverage=True)
        with valkey(config) as replica:
            replica.execute("CLUSTER", "MEET", "127.0.0.1", primary.port, str(primary.config["cluster-port"]))
            until(
                lambda: self._id(primary) in str(replica.execute("CLUSTER", "NODES")), "the replica knows its primary"
            )
            until(lambda: _replicates(replica, self._id(primary)), "the replica follows", detail=self._outputs)
            yield replica

    def wait_until_ok(self) -> None:
        """Wait until every node finds the cluster complete."""
        until(lambda: all(self._is_ok(node) for node in self.nodes), "cluster_state:ok", detail=self._outputs)

    def _is_ok(self, node: Valkey) -> bool:
        text = str(node.execute("CLUSTER", "INFO"))
        return "cluster_state:ok" in text and f"cluster_known_nodes:{len(self.nodes)}" in text

    @staticmethod
    def _id(node: Valkey) -> str:
        return str(node.execute("CLUSTER", "MYID"))

    @staticmethod
    def _owner_seen_by(node: Valkey, slot: int) -> int | None:
        for first, last, (_, port, *_), *_ in _raw_slots(node):
            if first <= slot <= last:
                return int(port)
        return None

    def _wait_for_owner(self, slot: int, node: Valkey) -> None:
        def known() -> bool:
            return {self._owner_seen_by(other, slot) for other in self.nodes if other.child.alive} == {node.port}

        until(known, f"slot {slot} with {node}", detail=self._outputs)

    def _outputs(self) -> str:
        return "\n\n".join(node.child.tail() for node in self.nodes)


def _raw_slots(node: Valkey) -> list[Any]:
    found: Any = node.client.eval("return redis.call('CLUSTER', 'SLOTS')", 0)  # which the client does not parse
    return found


def _replicates(replica: Valkey, primary: str) -> bool:
    with contextlib.suppress(ResponseError):  # it has not heard of it yet
        replica.execute("CLUSTER", "REPLICATE", primary)
        return replica.info("replication")["master_link_status"] == "up"
    return False


def _config(bus_port: int, node_timeout: float, *, full_coverage: bool) -> dict[str, Setting]:
    return {
        "cluster-enabled": "yes",
        "cluster-port": bus_port,
        "cluster-node-timeout": round(1000 * node_timeout),
        "cluster-require-full-coverage": "yes" if full_coverage else "no",
    }


@contextlib.contextmanager
def cluster(*, node_timeout: float = 1.0, full_coverage: bool = True) -> Generator[Cluster]:
    """Three primaries that share the slots, complete and ready; it takes some three seconds.

    `node_timeout` is how many seconds a node has to be silent before the others hold it for dead; with `full_coverage`
    they answer nothing then.
    """
    with contextlib.ExitStack() as stack:
        nodes: list[Valkey] = []
        bus_ports = [free_port() for _ in range(_NODES)]
        for bus_port in bus_ports:
            config = _config(bus_port, node_timeout, full_coverage=full_coverage)
            nodes.append(stack.enter_context(valkey(config)))
        share = -(-_SLOTS // len(nodes))
        for number, node in enumerate(nodes):
            first = number * share
            node.execute("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            node.execute("CLUSTER", "ADDSLOTSRANGE", first, min(first + share, _SLOTS) - 1)
        for node, bus_port in list(zip(nodes, bus_ports, strict=True))[1:]:
            nodes[0].execute("CLUSTER", "MEET", "127.0.0.1", node.port, bus_port)
        made = Cluster(nodes)
        made.wait_until_ok()
        yield made
