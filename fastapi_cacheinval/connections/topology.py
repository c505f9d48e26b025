"""Which server answers for a key, and how its connections are made anew: one server, Sentinels, or a cluster."""

from __future__ import annotations

import inspect
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple, Protocol

from redis.asyncio import Redis
from redis.asyncio.cluster import PipelineCommand
from redis.exceptions import AskError, MovedError, RedisClusterException, TryAgainError

from fastapi_cacheinval.connections.away import Unconfirmed
from fastapi_cacheinval.connections.releasing import Releases

__all__ = ["Clustered", "Confirm", "Single", "Topology"]


class Confirm(NamedTuple):
    """How many `replicas` of a server have to acknowledge what is written to it, and within how many `seconds`."""

    replicas: int
    seconds: float

    @property
    def command(self) -> tuple[str, int, int]:
        """What is sent on the same connection, right after the command that has to be acknowledged."""
        return "WAIT", self.replicas, max(1, int(self.seconds * 1000))

    def check(self, results: Sequence[Any]) -> Any:
        """The result of that command; raises its error, or `Unconfirmed` where too few have acknowledged it."""
        reply, count = results
        for result in results:
            if isinstance(result, BaseException):
                raise result
        if count < self.replicas:
            raise Unconfirmed(f"{count} of {self.replicas} replica(s) of the server have acknowledged it in time")
        return reply


class Topology(Protocol):
    """The servers behind one client."""

    @property
    def known(self) -> bool:
        """Whether it is known which servers there are."""
        ...

    async def learn(self) -> None:
        """Ask which servers there are."""
        ...

    def server_of(self, key: bytes) -> str:
        """The name of the server that has a key, as far as is known."""
        ...

    async def send(self, key: bytes, parts: Sequence[Any]) -> Any:
        """Have one command about a key executed."""
        ...

    async def send_script(self, key: bytes, parts: Sequence[Any]) -> Any:
        """Have a script executed, whose reply is taken as it comes."""
        ...

    async def send_confirmed(self, key: bytes, parts: Sequence[Any], confirm: Confirm) -> Any:
        """The same, and have replicas acknowledge it; one round trip. Raises `Unconfirmed` where too few do."""
        ...

    async def renew(self, server: str) -> None:
        """Drop the connections to a server that nobody uses at the moment, and look anew at which server it is."""
        ...

    async def subscriber(self) -> Any:
        """A client that can subscribe; whoever gets another one than the topology's own closes it."""
        ...

    async def close(self) -> None:
        """Close the client and what is beside it."""
        ...


class Single:
    """One server, or the primary that Sentinels name; `watchers` are the clients of those, the next to ask first."""

    def __init__(self, client: Any, watchers: list[Any] | None = None) -> None:
        self._client = client
        self._watchers = [] if watchers is None else watchers
        self._releases = [Releases(each.connection_pool) for each in (client, *self._watchers)]
        # A class of the user's may do something of its own for each command.
        self._stock = type(client) is Redis and not client.single_connection_client
        first = next(iter(inspect.signature(client.connection_pool.get_connection).parameters.values()), None)
        # Before redis-py 5.3 a pool was told the command.
        self._told = ("EVALSHA",) if first is not None and first.default is first.empty else ()

    @property
    def known(self) -> bool:
        return True

    async def learn(self) -> None:
        return

    def server_of(self, key: bytes) -> str:
        return ""

    async def send(self, key: bytes, parts: Sequence[Any]) -> Any:
        return await self._client.execute_command(*parts)

    # A tenth of a round trip is what the client does around each command: retries, measuring, and replies of its own.
    async def send_script(self, key: bytes, parts: Sequence[Any]) -> Any:
        if not self._stock:
            return await self.send(key, parts)
        pool = self._client.connection_pool
        connection = await pool.get_connection(*self._told)
        try:
            await connection.send_command(*parts)
            return await connection.read_response()
        finally:
            await pool.release(connection)

    async def send_confirmed(self, key: bytes, parts: Sequence[Any], confirm: Confirm) -> Any:
        pipeline = self._client.pipeline(transaction=False)
        pipeline.execute_command(*parts)
        pipeline.execute_command(*confirm.command)
        return confirm.check(await pipeline.execute(raise_on_error=False))

    async def renew(self, server: str) -> None:
        for client in (self._client, *self._watchers):
            pool = client.connection_pool
            if hasattr(pool, "update_active_connections_for_reconnect"):
                # Those in use are closed when they come back.
                await pool.update_active_connections_for_reconnect()
            await pool.disconnect(inuse_connections=False)
        if self._watchers:
            # One that is cut off from the others names a primary that was replaced, or is silent.
            self._watchers.append(self._watchers.pop(0))

    async def subscriber(self) -> Any:
        return self._client

    async def close(self) -> None:
        try:
            await _closed(*(client.aclose for client in (self._client, *self._watchers)))
        finally:
            for releases in self._releases:
                await releases.ended()


class Clustered:
    """A cluster; `one_node` makes a client of a single node, for what is published on any is heard on all.

    Commands go to the node that has the key, past the cluster client: that one stops all its calls, to whatever node,
    to look at the cluster anew when one node is gone. It still follows slots that have moved.
    """

    def __init__(self, client: Any, one_node: Callable[[Any], Any]) -> None:
        self._client = client
        self._one_node = one_node
        self._next = random.randrange(1000)  # noqa: S311 - spreads the subscriptions over the nodes
        self._defers = "last_failed_node_name" in inspect.signature(client.nodes_manager.initialize).parameters

    @property
    def known(self) -> bool:
        return bool(self._client.get_nodes())

    async def learn(self) -> None:
        await self._client.initialize()

    def _node_of(self, key: bytes) -> Any:
        """None where it is not known yet, or where nobody has the key."""
        try:
            return self._client.get_node_from_key(key)
        except (RedisClusterException, AttributeError, IndexError):
            return None

    def server_of(self, key: bytes) -> str:
        node = self._node_of(key)
        return "" if node is None else str(node.name)

    async def send(self, key: bytes, parts: Sequence[Any]) -> Any:
        node = self._node_of(key)
        if node is not None:
            with suppress(AskError, MovedError, TryAgainError):
                return await node.execute_command(*parts)
        return await self._client.execute_command(*parts)

    async def send_script(self, key: bytes, parts: Sequence[Any]) -> Any:
        return await self.send(key, parts)

    async def send_confirmed(self, key: bytes, parts: Sequence[Any], confirm: Confirm) -> Any:
        try:
            return await self._sent_confirmed(key, parts, confirm)
        except MovedError:
            await self.renew("")
            return await self._sent_confirmed(key, parts, confirm)

    async def _sent_confirmed(self, key: bytes, parts: Sequence[Any], confirm: Confirm) -> Any:
        commands = [PipelineCommand(0, *parts), PipelineCommand(1, *confirm.command)]
        await self._client.get_node_from_key(key).execute_pipeline(commands)
        return confirm.check([command.result for command in commands])

    async def renew(self, server: str) -> None:
        nodes = self._client.nodes_manager
        node = self._client.get_node(node_name=server) if server else None
        if node is not None:
            if hasattr(node, "update_active_connections_for_reconnect"):
                node.update_active_connections_for_reconnect()
            await getattr(node, "disconnect_free_connections", node.disconnect)()
        if len(nodes.startup_nodes) > 1:
            first = next(iter(nodes.startup_nodes))
            nodes.startup_nodes[first] = nodes.startup_nodes.pop(first)
        await nodes.initialize(**({"last_failed_node_name": server} if server and self._defers else {}))

    async def subscriber(self) -> Any:
        await self.learn()
        nodes = sorted(self._client.get_nodes(), key=lambda node: node.name)
        # Another each time: the last may be the one that is gone.
        self._next += 1
        return self._one_node(nodes[self._next % len(nodes)])

    async def close(self) -> None:
        nodes = self._client.nodes_manager
        # The client itself closes nothing before its first look at the cluster has succeeded.
        await _closed(self._client.aclose, nodes.aclose, partial(nodes.aclose, "startup_nodes"))


async def _closed(*closing: Callable[[], Awaitable[Any]]) -> None:
    failed: Exception | None = None
    for close in closing:
        try:
            await close()
        except Exception as error:  # noqa: BLE001 - the others are closed all the same
            failed = error
    if failed is not None:
        raise failed
