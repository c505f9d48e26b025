"""Split brains: three hosts, each with a Valkey, a Sentinel and a replica of the app, in a network that parts."""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator, Generator, Sequence

from chaos.hosts import HostServer, Network, network
from chaos.lanes import Lane, do, last, with_options
from chaos.replica_faults import REPLICA_KINDS
from chaos.stage import Setting, Stage, in_namespaces
from tests.servers.waiting import until

__all__ = ["HOSTS", "Sentinels", "sentinels"]

HOSTS = 3
_NAME = "primary"
_QUORUM = 2
_SERVER = "repl-ping-replica-period 1\nrepl-timeout 5\nrepl-diskless-sync no\n"
# As in the tests: a failover takes about two seconds.
_QUICK = ("ping-period", 250, "info-period", 100, "ask-period", 50, "publish-period", 100)
_DOWN_AFTER, _FAILOVER = 800, 2000
# In shares of the bound: long enough for a failover, and for the faults that show only after it.
_LONGEST = (3.0, 8.0)


class Sentinels(Stage):
    """The target of the faults: hosts in a network, each with one of the `servers` and one of the `watchers`."""

    network: Network
    servers: list[HostServer]
    watchers: list[HostServer]

    @property
    def primary(self) -> int:
        """The number of the host that most Sentinels name as the primary's."""
        named = Counter(str(watcher.execute(*_WHO)[0]) for watcher in self.watchers if watcher.child.alive)
        (address, _), *_ = named.most_common(1)
        return next(host.number for host in self.network.hosts if host.address == address)

    def wait_until_whole(self) -> None:
        """Wait until the Sentinels agree on a primary that all other servers follow."""

        def whole() -> bool:
            if len({str(watcher.execute(*_WHO)) for watcher in self.watchers}) > 1:
                return False
            state = self.servers[self.primary].info("replication")
            return state["role"] == "master" and state["connected_slaves"] == HOSTS - 1

        until(whole, "all servers follow one", seconds=60)

    def revive(self, number: int) -> None:
        """Start a server that was killed, as a replica of the current primary."""
        address = self.network.hosts[self.primary].address
        more = () if self.primary == number else ("--replicaof", f"{address} 6379")
        self.servers[number].start(*more)


_WHO = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", _NAME)


@contextlib.asynccontextmanager
async def _parted(stage: Sentinels, draw: random.Random, *groups: Sequence[int]) -> AsyncIterator[None]:
    await do(stage.network.part, *groups)
    try:
        yield
        await last(stage.bound, draw, _LONGEST)
    finally:
        await do(stage.network.heal)
        await do(stage.wait_until_whole)


@contextlib.asynccontextmanager
async def _cut_off(stage: Sentinels, draw: random.Random, *, primary: bool) -> AsyncIterator[str]:
    leading = await do(lambda: stage.primary)
    number = leading if primary else (leading + draw.choice((1, 2))) % HOSTS
    async with _parted(stage, draw, [number]):
        yield f"host {number}"


@contextlib.asynccontextmanager
async def _all_apart(stage: Sentinels, draw: random.Random) -> AsyncIterator[str]:
    async with _parted(stage, draw, [1], [2]):
        yield "all hosts"


@contextlib.asynccontextmanager
async def _primary_killed(stage: Sentinels, draw: random.Random) -> AsyncIterator[str]:
    number = await do(lambda: stage.primary)
    await do(stage.servers[number].child.kill)
    try:
        yield f"host {number}"
        await last(stage.bound, draw, _LONGEST)
    finally:
        await do(stage.revive, number)
        await do(stage.wait_until_whole)


@contextlib.asynccontextmanager
async def _primary_paused(stage: Sentinels, draw: random.Random) -> AsyncIterator[str]:
    """The primary wakes and goes on, and does not know that it was replaced."""
    number = await do(lambda: stage.primary)
    stage.servers[number].child.pause()
    try:
        yield f"host {number}"
        await last(stage.bound, draw, _LONGEST)
    finally:
        stage.servers[number].child.resume()
        await do(stage.wait_until_whole)


_SENTINELS = Lane(
    {
        "host of the primary cut off": with_options(_cut_off, primary=True),
        "another host cut off": with_options(_cut_off, primary=False),
        "all hosts apart": _all_apart,
        "primary killed": _primary_killed,
        "primary paused": _primary_paused,
    },
    between=(1.0, 3.0),
)
_REPLICAS = Lane(REPLICA_KINDS, between=(0.5, 1.5))


def _watcher(address: str, own: str) -> str:
    return (
        f"port 26379\nsentinel monitor {_NAME} {address} 6379 {_QUORUM}\n"
        f"sentinel down-after-milliseconds {_NAME} {_DOWN_AFTER}\n"
        f"sentinel failover-timeout {_NAME} {_FAILOVER}\nsentinel announce-ip {own}\n"
    )


@contextlib.contextmanager
def sentinels(setting: Setting) -> Generator[Sentinels]:
    """The replicas, one on each of three hosts, however many were asked for."""
    with contextlib.ExitStack() as stack:
        net = stack.enter_context(network(HOSTS))
        first, *_ = net.hosts
        servers: list[HostServer] = []
        watchers: list[HostServer] = []
        for host in net.hosts:
            config = _SERVER + ("" if host is first else f"replicaof {first.address} 6379\n")
            servers.append(
                HostServer(host, setting.directory, f"port 6379\nreplica-announce-ip {host.address}\n{config}")
            )
            stack.callback(servers[-1].close)
        for host in net.hosts:
            config = _watcher(first.address, host.address)
            watchers.append(HostServer(host, setting.directory, config, sentinel=True))
            stack.callback(watchers[-1].close)
            watchers[-1].execute("SENTINEL", "DEBUG", *_QUICK)
        url = f"redis+sentinel://{','.join(f'{host.address}:26379' for host in net.hosts)}/{_NAME}/0"
        replicas, addresses = in_namespaces(stack, setting, url, [host.command for host in net.hosts])
        made = Sentinels(replicas, addresses, setting.bound, (_SENTINELS, _REPLICAS))
        made.network, made.servers, made.watchers = net, servers, watchers
        made.wait_until_whole()
        yield made
