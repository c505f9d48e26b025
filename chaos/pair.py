"""Replicas, each with a proxy of its own to a Valkey that has a replica of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Generator

from chaos.faults import REPLICAS, SERVER
from chaos.stage import Setting, Stage, on_ports
from fastapi_cacheinval.testing.servers.fleet import Fleet
from tests.servers import Proxy, Replicated, tcp_proxy, valkey

__all__ = ["Pair", "pair"]


class Pair(Stage):
    """`proxies` are the ways of the replicas to the server, in their order."""

    def __init__(self, servers: Replicated, proxies: list[Proxy], replicas: list[Fleet], bound: float) -> None:
        super().__init__(replicas, [port for each in replicas for port in each.ports], bound, (SERVER, REPLICAS))
        self.pair = servers
        self.proxies = proxies

    def fail_over(self) -> None:
        """Kill the primary and lead every replica to the other server, which then is the primary."""
        self.pair.promote()
        for proxy in self.proxies:
            proxy.target = self.pair.primary.port
            proxy.reset()

    def follow(self) -> None:
        """Start what was killed, empty, as the replica of the primary."""
        if not self.pair.replica.child.alive:
            self.pair.replica.start()
        self.pair.follow()


@contextlib.contextmanager
def pair(setting: Setting) -> Generator[Pair]:
    """The replicas, answering; the authority has to be there by then."""
    with contextlib.ExitStack() as stack:
        first, second = stack.enter_context(valkey()), stack.enter_context(valkey())
        proxies = [stack.enter_context(tcp_proxy(first.port)) for _ in range(setting.count)]
        servers = Replicated(first, second, proxies[0])
        servers.follow()
        # RESP2 and RESP3 side by side.
        urls = [f"{proxy.url}?protocol={2 + number % 2}" for number, proxy in enumerate(proxies)]
        yield Pair(servers, proxies, on_ports(stack, setting, urls), setting.bound)
