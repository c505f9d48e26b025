"""The servers of a run: replicas, each with a proxy of its own to a Valkey that has a replica of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Literal

from tests.servers import Processes, Proxy, Replicated, processes, tcp_proxy, valkey
from tests.servers.processes import ServerName

__all__ = ["Build", "Stage", "stage"]

Build = Literal["cacheinval", "delete-and-publish"]


class Stage:
    """What faults are done to. `bound` is the staleness bound in seconds; the methods block."""

    def __init__(self, pair: Replicated, proxies: list[Proxy], replicas: list[Processes], bound: float) -> None:
        self.pair = pair
        self.proxies = proxies
        self.bound = bound
        self._replicas = replicas

    @property
    def ports(self) -> list[int]:
        """Where the replicas listen, also while they are not there."""
        return [port for replica in self._replicas for port in replica.ports]

    def pause(self, number: int) -> None:
        """Stop a replica in its tracks."""
        self._replicas[number].pause(0)

    def resume(self, number: int) -> None:
        """Let it go on."""
        self._replicas[number].resume(0)

    def kill(self, number: int) -> None:
        """End a replica at once."""
        self._replicas[number].kill(0)

    def restart(self, number: int) -> None:
        """Shut a replica down, if it is still there, start it, and wait until it answers."""
        self._replicas[number].restart(0)

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


def _begun(stack: contextlib.ExitStack, each: AbstractContextManager[Processes]) -> Processes:
    return stack.enter_context(each)


@contextlib.contextmanager
def stage(
    directory: Path, count: int, *, server: ServerName, build: Build, bound: float, seed: str, authority: Path, cdn: str
) -> Generator[Stage]:
    """So many replicas, answering; the authority at that socket and the CDN at that URL have to be there by then."""
    with contextlib.ExitStack() as stack:
        first, second = stack.enter_context(valkey()), stack.enter_context(valkey())
        proxies = [stack.enter_context(tcp_proxy(first.port)) for _ in range(count)]
        pair = Replicated(first, second, proxies[0])
        pair.follow()
        made: list[AbstractContextManager[Processes]] = []
        for number, proxy in enumerate(proxies):
            environment = {
                "CHAOS_AUTHORITY": str(authority),
                "CHAOS_BOUND": str(bound),
                "CHAOS_BUILD": build,
                "CHAOS_CDN": cdn,
                # RESP2 and RESP3 side by side.
                "CHAOS_REDIS": f"{proxy.url}?protocol={2 + number % 2}",
                "CHAOS_REPLICA": str(number),
                "CHAOS_SEED": seed,
            }
            own = directory / f"replica-{number}"
            own.mkdir()
            made.append(
                processes("chaos.app:app", 1, server=server, directory=own, environment=environment, path="/-/state")
            )
        with ThreadPoolExecutor() as together:
            replicas = list(together.map(partial(_begun, stack), made))
        yield Stage(pair, proxies, replicas, bound)
        for replica in replicas:
            replica.children[0].ask_to_end()
