"""Heartbeats and purges that go to the log itself, without a cache around them."""

from __future__ import annotations

from functools import partial

from fastapi_cacheinval.bus.call import log_keys
from fastapi_cacheinval.bus.redis import RedisLog, Sight
from fastapi_cacheinval.connections.urls import by_url
from fastapi_cacheinval.core.log_types import Ask, Reset
from fastapi_cacheinval.core.replica import Replica
from fastapi_cacheinval.ports.log import Answer, Proposal
from tests.helpers.fleet import PATIENCE
from tests.servers import Valkey


class Asking:
    """Replicas as the log sees them; `ask` is what the next call says that they have read."""

    def __init__(self, server: Valkey, bound: float, *, confirm_replicas: int = 0) -> None:
        self._client = by_url(server.url, PATIENCE, 2**20)()
        self.log = RedisLog(
            self._client,
            log_keys("cacheinval"),
            bound=bound,
            life=partial(float, 60),
            sight=Sight(),
            confirm_replicas=confirm_replicas,
        )
        self.ask = Replica(staleness_bound=bound).ask()

    async def heartbeat(self, name: str) -> None:
        """Ask as this replica, and read what the log answers."""
        reply = (await self.log.run(self.ask, name)).reply
        if isinstance(reply, Reset):
            self.ask = Ask(reply.term, reply.seq, reply.nonce)

    async def purge(self, name: str) -> Answer:
        """Purge as this replica, or as a publisher if the name is empty, and wait for nobody."""
        return await self.log.run(self.ask, name, Proposal(("a",), soft=False, prompt=True), waiter="writer")

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()
