"""The replicas of a run, whatever servers they have: what every stage can do to them."""

from __future__ import annotations

import contextlib
import random
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from chaos.cdn import CDN
from chaos.client import Address, answers
from chaos.lanes import Lane
from fastapi_cacheinval.testing.servers.fleet import Fleet
from tests.servers.ports import free_port
from tests.servers.processes import ServerName, processes

__all__ = ["Build", "Setting", "Stage", "in_namespaces", "on_ports"]

Build = Literal["cacheinval", "delete-and-publish"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """The replicas to make: `count` of them, each in a folder of `directory`; `authority` is the socket of the rows."""

    directory: Path
    authority: Path
    cdn: CDN
    count: int
    server: ServerName
    build: Build
    bound: float
    seed: str
    confirm_replicas: int = 0

    def environment(self, number: int, redis: str) -> dict[str, str]:
        """The environment of one replica's app."""
        return {
            "CHAOS_AUTHORITY": str(self.authority),
            "CHAOS_BOUND": str(self.bound),
            "CHAOS_BUILD": self.build,
            "CHAOS_CDN": self.cdn.url,
            "CHAOS_CONFIRM": str(self.confirm_replicas),
            "CHAOS_REDIS": redis,
            "CHAOS_REPLICA": str(number),
            "CHAOS_SEED": self.seed,
        }

    def folder(self, number: int) -> Path:
        """A directory of one replica's own."""
        own = self.directory / f"replica-{number}"
        own.mkdir(exist_ok=True)
        return own


class Stage:
    """The target of the faults. `bound` is the staleness bound in seconds; the methods block."""

    def __init__(
        self, replicas: Sequence[Fleet], addresses: Sequence[Address], bound: float, lanes: Sequence[Lane]
    ) -> None:
        self.addresses = addresses
        self.bound = bound
        self.lanes = lanes
        # The number of replicas, from the first on, that are neither killed nor shut down.
        self.spared = 0
        self._replicas = replicas

    @property
    def count(self) -> int:
        """The number of replicas, with those that are down."""
        return len(self.addresses)

    def one(self, draw: random.Random) -> int:
        """The number of any replica."""
        return draw.randrange(self.count)

    def mortal(self, draw: random.Random) -> int:
        """The number of any that may be ended."""
        return draw.randrange(self.spared, self.count)

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


def _all(stack: contextlib.ExitStack, made: Sequence[contextlib.AbstractContextManager[Fleet]]) -> list[Fleet]:
    with ThreadPoolExecutor() as together:
        replicas: list[Fleet] = list(together.map(stack.enter_context, made))
    # Ask all of them to end before the stack waits for each.
    stack.callback(_ask_to_end, replicas)
    return replicas


def _ask_to_end(replicas: Sequence[Fleet]) -> None:
    for replica in replicas:
        replica.children[0].ask_to_end()


def on_ports(stack: contextlib.ExitStack, setting: Setting, urls: Sequence[str]) -> list[Fleet]:
    """A replica for each URL of Redis, answering on a port of its own, until the stack is closed."""
    return _all(
        stack,
        [
            processes(
                "chaos.app:app",
                1,
                server=setting.server,
                directory=setting.folder(number),
                environment=setting.environment(number, url),
                path="/-/state",
            )
            for number, url in enumerate(urls)
        ],
    )


@contextlib.contextmanager
def _on_socket(
    setting: Setting, number: int, command: Callable[[Sequence[str]], list[str]], environment: Mapping[str, str]
) -> Generator[Fleet]:
    folder = setting.folder(number)
    socket = folder / "app.sock"
    words = [sys.executable, "-m", "uvicorn", "--uds", str(socket), "--timeout-graceful-shutdown", "3", "chaos.app:app"]
    fleet = Fleet(
        "uvicorn",
        lambda _: command(words),
        lambda _: answers(socket, "/-/state"),
        directory=folder,
        environment=environment,
    )
    try:
        fleet.start_on([free_port()])
        yield fleet
    finally:
        fleet.close()


def in_namespaces(
    stack: contextlib.ExitStack, setting: Setting, redis: str, commands: Sequence[Callable[[Sequence[str]], list[str]]]
) -> tuple[list[Fleet], list[Address]]:
    """A replica under uvicorn in each namespace, that answers on a Unix socket; a command runs words in one of them."""
    made = [
        _on_socket(setting, number, command, setting.environment(number, redis))
        for number, command in enumerate(commands)
    ]
    return _all(stack, made), [setting.folder(number) / "app.sock" for number in range(len(commands))]
