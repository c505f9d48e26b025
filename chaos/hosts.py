"""Hosts on one machine: network namespaces, joined by bridges that can be parted. It needs root."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Generator, Iterable, Sequence
from pathlib import Path
from typing import Any

import redis

from fastapi_cacheinval.testing.servers.child import Child
from fastapi_cacheinval.testing.servers.valkey import binary
from tests.servers.waiting import until

__all__ = ["Host", "HostServer", "Network", "network", "possible"]

_NET = "10.203.77"


def _ip(*words: object) -> None:
    subprocess.run(["/usr/bin/env", "ip", *map(str, words)], check=True, capture_output=True)


def possible() -> bool:
    """Whether this process may make network namespaces with bridges."""
    if os.geteuid() or shutil.which("ip") is None:
        return False
    try:
        with network(2):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


class Host:
    """One namespace, with an address that the other hosts reach."""

    def __init__(self, namespace: str, number: int) -> None:
        self.namespace = namespace
        self.number = number
        self.address = f"{_NET}.{number + 1}"

    def command(self, words: Sequence[str]) -> list[str]:
        """The command that runs these words on the host."""
        return ["ip", "netns", "exec", self.namespace, *words]


class Network:
    """The hosts, and a switch with a bridge for each: hosts on one bridge reach each other, and no others."""

    def __init__(self, name: str, count: int) -> None:
        self._switch = f"{name}s"
        self.hosts = [Host(f"{name}h{number}", number) for number in range(count)]

    def build(self) -> None:
        """Make it, with all hosts on the first bridge."""
        _ip("netns", "add", self._switch)
        for host in self.hosts:
            number, bridge = host.number, f"br{host.number}"
            _ip("netns", "add", host.namespace)
            _ip("-n", self._switch, "link", "add", bridge, "type", "bridge")
            _ip("-n", self._switch, "link", "set", bridge, "up")
            _ip("link", "add", f"v{number}", "netns", self._switch, "type", "veth", "peer", "name", "eth0", "netns",
                host.namespace)  # fmt: skip
            _ip("-n", self._switch, "link", "set", f"v{number}", "master", "br0", "up")
            _ip("-n", host.namespace, "addr", "add", f"{host.address}/24", "dev", "eth0")
            for device in ("eth0", "lo"):
                _ip("-n", host.namespace, "link", "set", device, "up")

    def part(self, *groups: Iterable[int]) -> None:
        """Give each group of hosts a bridge of its own; a host in no group stays on the first bridge."""
        for bridge, group in enumerate(groups, 1):
            for number in group:
                _ip("-n", self._switch, "link", "set", f"v{number}", "master", f"br{bridge}")

    def heal(self) -> None:
        """Let all reach each other."""
        for host in self.hosts:
            _ip("-n", self._switch, "link", "set", f"v{host.number}", "master", "br0")

    def remove(self) -> None:
        """Delete it, also where `build` failed half-way."""
        for namespace in (self._switch, *(host.namespace for host in self.hosts)):
            with contextlib.suppress(subprocess.CalledProcessError):
                _ip("netns", "delete", namespace)


@contextlib.contextmanager
def network(count: int) -> Generator[Network]:
    """So many hosts that reach each other."""
    made = Network(f"chaos{os.getpid()}", count)
    try:
        made.build()
        yield made
    finally:
        made.remove()


class HostServer:
    """A Valkey, or a Sentinel, on a host; commands reach it by its Unix socket, whatever the network does."""

    def __init__(self, host: Host, directory: Path, config: str, *, sentinel: bool = False) -> None:
        self.host = host
        self._name = f"{'sentinel' if sentinel else 'valkey'}-{host.number}"
        self._directory = directory
        self._file = directory / f"{self._name}.conf"
        self._socket = directory / f"{self._name}.sock"
        self._mode = ["--sentinel"] if sentinel else []
        common = f"protected-mode no\nbind 0.0.0.0\ndir {directory}\nunixsocket {self._socket}\nsave ''\n"
        # A Sentinel keeps its state in its configuration file.
        self._file.write_text(common.replace("save ''\n", "") + config if sentinel else common + config)
        self._client = redis.Redis(unix_socket_path=str(self._socket), decode_responses=True, socket_timeout=5)
        self.child: Child
        self.start()

    def start(self, *more: str) -> None:
        """Start it, with more settings, and wait until it answers."""
        self._socket.unlink(missing_ok=True)
        command = self.host.command([binary(), str(self._file), *more, *self._mode])
        self.child = Child(self._name, command, self._directory)
        until(self._answers, f"{self._name} answers", detail=self.child.tail)

    def _answers(self) -> bool:
        try:
            return bool(self._client.ping())
        except redis.RedisError:
            return False

    def execute(self, *words: str | int) -> Any:
        """One raw command."""
        return self._client.execute_command(*words)

    def info(self, section: str) -> dict[str, Any]:
        """One section of `INFO`."""
        found: Any = self._client.info(section)
        return found

    def close(self) -> None:
        """End it."""
        self._client.close()
        self.child.kill()
