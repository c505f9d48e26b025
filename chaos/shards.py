"""A cluster of three primaries, of which any may be gone for a while, the one with the log among them."""

from __future__ import annotations

import contextlib
import random
from collections.abc import AsyncIterator, Generator

from chaos.app import NAMESPACE
from chaos.lanes import LONG, Lane, do, last, with_options
from chaos.replica_faults import REPLICA_KINDS
from chaos.stage import Setting, Stage, on_ports
from tests.servers import Cluster, Valkey, cluster

__all__ = ["Shards", "shards"]


class Shards(Stage):
    """What faults are done to: `cluster` has the nodes."""

    cluster: Cluster

    def node(self, draw: random.Random, *, of_the_log: bool) -> Valkey:
        """The node that has the log, or another one."""
        owner = self.cluster.owner(self.log_slot)
        return owner if of_the_log else draw.choice([node for node in self.cluster.nodes if node is not owner])

    @property
    def log_slot(self) -> int:
        """Where the log is."""
        return self.cluster.slot_of(f"{{{NAMESPACE}}}:state")


@contextlib.asynccontextmanager
async def _gone(stage: Shards, draw: random.Random, *, of_the_log: bool) -> AsyncIterator[str]:
    """It comes back empty."""
    node = await do(lambda: stage.node(draw, of_the_log=of_the_log))
    await do(node.kill)
    try:
        yield str(node)
        await last(stage.bound, draw, LONG)
    finally:
        await do(node.start)
        await do(stage.cluster.wait_until_ok)


@contextlib.asynccontextmanager
async def _paused(stage: Shards, draw: random.Random, *, of_the_log: bool) -> AsyncIterator[str]:
    node = await do(lambda: stage.node(draw, of_the_log=of_the_log))
    node.pause()
    try:
        yield str(node)
        await last(stage.bound, draw, LONG)
    finally:
        node.resume()
        await do(stage.cluster.wait_until_ok)


@contextlib.asynccontextmanager
async def _moved(stage: Shards, draw: random.Random) -> AsyncIterator[str]:
    owner = await do(lambda: stage.node(draw, of_the_log=True))
    await do(stage.cluster.move_slot, stage.log_slot, stage.cluster.other_than(owner))
    yield str(owner)


_SHARDS = Lane(
    {
        "log's shard gone": with_options(_gone, of_the_log=True),
        "another shard gone": with_options(_gone, of_the_log=False),
        "log's shard paused": with_options(_paused, of_the_log=True),
        "another shard paused": with_options(_paused, of_the_log=False),
        "log's slot moved": _moved,
    },
    between=(0.8, 2.0),
)
_REPLICAS = Lane(REPLICA_KINDS, between=(0.5, 1.5))


@contextlib.contextmanager
def shards(setting: Setting) -> Generator[Shards]:
    """The replicas, answering."""
    with contextlib.ExitStack() as stack:
        nodes = stack.enter_context(cluster(full_coverage=False))
        url = f"redis+cluster://{','.join(f'127.0.0.1:{node.port}' for node in nodes.nodes)}"
        replicas = on_ports(stack, setting, [url] * setting.count)
        ports = [port for each in replicas for port in each.ports]
        made = Shards(replicas, ports, setting.bound, (_SHARDS, _REPLICAS))
        made.cluster = nodes
        yield made
