"""A primary, replicas and three Sentinels that fail over in earnest, and quickly."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from typing import Any

from tests.servers.valkey import Valkey, valkey
from tests.servers.waiting import until

NAME = "primary"
_QUORUM = 2
# In milliseconds, for SENTINEL DEBUG; the defaults are meant for networks. A still shorter "ping-period" would be wrong:
# a replica counts as fit for promotion when it was heard of within five of these, and is asked each second.
_QUICK = {
    "ping-period": 250,
    "info-period": 100,
    "ask-period": 50,
    "publish-period": 100,
    "min-link-reconnect-period": 100,
}


class Sentinels:
    """The Sentinels and what they watch; `servers` has the first primary first."""

    def __init__(self, sentinels: list[Valkey], servers: list[Valkey]) -> None:
        self.sentinels = sentinels
        self.servers = servers
        self.name = NAME

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """What `redis.asyncio.sentinel.Sentinel` is made with."""
        return [("127.0.0.1", sentinel.port) for sentinel in self.sentinels]

    @property
    def primary(self) -> Valkey:
        """The server that all Sentinels name as the primary; fails when they differ."""
        (port,) = self._named()
        (found,) = [server for server in self.servers if server.port == port]
        return found

    def fail_over(self) -> Valkey:
        """Kill the primary, wait until the Sentinels agree on another that takes writes, and give that one."""
        before = self.primary
        before.kill()
        return self.wait_for_another_than(before)

    def wait_for_another_than(self, before: Valkey) -> Valkey:
        """Wait until the Sentinels agree on another primary that takes writes, and give it."""

        def another() -> Valkey | None:
            named = self._named()
            if len(named) != 1 or before.port in named:
                return None
            return self.primary if self.primary.info("replication")["role"] == "master" else None

        return until(another, "a failover", detail=self._outputs)

    def wait_until_ready(self) -> None:
        """Wait until each Sentinel knows the other ones and the replicas."""

        def ready() -> bool:
            return all(self._knows_all(sentinel) for sentinel in self.sentinels)

        until(ready, "the Sentinels know each other", detail=self._outputs)

    def _named(self) -> set[int]:
        return {
            int(sentinel.execute("SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME)[1])
            for sentinel in self.sentinels
            if sentinel.child.alive
        }

    def _knows_all(self, sentinel: Valkey) -> bool:
        # The raw answers: the client's parsed ones differ between its versions.
        view = _paired(sentinel.execute("SENTINEL", "MASTER", NAME))
        replicas = [_paired(answer) for answer in sentinel.execute("SENTINEL", "REPLICAS", NAME)]
        return (
            int(view["num-other-sentinels"]) == len(self.sentinels) - 1
            and len(replicas) == len(self.servers) - 1
            and all(replica["master-link-status"] == "ok" for replica in replicas)
        )

    def _outputs(self) -> str:
        return "\n\n".join(server.child.tail() for server in [*self.sentinels, *self.servers])


def _paired(answer: Any) -> dict[str, Any]:
    return answer if isinstance(answer, dict) else dict(zip(answer[::2], answer[1::2], strict=True))


@contextlib.contextmanager
def sentinels(*, replicas: int = 1, down_after: float = 0.8) -> Generator[Sentinels]:
    """A primary with replicas, and three Sentinels that agree on it.

    `down_after` is how many seconds a server has to be silent before it is held for dead: at least 0.5, or Sentinels
    that ask four times a second find the living dead. A failover takes about a second more.
    """
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(valkey()) for _ in range(1 + replicas)]
        for replica in servers[1:]:
            replica.execute("REPLICAOF", "127.0.0.1", servers[0].port)
        watchers = [stack.enter_context(valkey(sentinel=True)) for _ in range(3)]
        for watcher in watchers:
            watcher.execute("SENTINEL", "DEBUG", *(word for pair in _QUICK.items() for word in pair))
            watcher.execute("SENTINEL", "MONITOR", NAME, "127.0.0.1", servers[0].port, _QUORUM)
            settings = {"down-after-milliseconds": round(1000 * down_after), "failover-timeout": 2000}
            for setting, value in settings.items():
                watcher.execute("SENTINEL", "SET", NAME, setting, value)
        topology = Sentinels(watchers, servers)
        topology.wait_until_ready()
        yield topology
