"""A primary and replicas of it, with a link to each that can be cut without the primary noticing."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Mapping

from tests.servers.proxy import Proxy, tcp_proxy
from tests.servers.replicated import catch_up
from tests.servers.valkey import Setting, Valkey, valkey


class Group:
    """`servers` has the primary first; `links` are the connections of the others to it, in their order."""

    def __init__(self, servers: list[Valkey], links: list[Proxy]) -> None:
        self.servers = servers
        self.links = links

    def follow(self, replica: Valkey, primary: Valkey, by: Proxy | None = None) -> None:
        """Have a server replicate another, through a proxy or directly, and wait until it has caught up."""
        replica.execute("REPLICAOF", "127.0.0.1", primary.port if by is None else by.port)
        catch_up(replica, primary)

    def part(self, number: int) -> Valkey:
        """Cut a replica off from the primary, which does not notice, and return the replica."""
        self.links[number - 1].black_hole()
        return self.servers[number]


@contextlib.contextmanager
def group(replicas: int, config: Mapping[str, Setting] | None = None) -> Generator[Group]:
    """A primary, and replicas that have caught up with it."""
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(valkey(config)) for _ in range(1 + replicas)]
        links = [stack.enter_context(tcp_proxy(servers[0].port)) for _ in range(replicas)]
        made = Group(servers, links)
        for replica, link in zip(servers[1:], links, strict=True):
            made.follow(replica, servers[0], link)
        yield made
