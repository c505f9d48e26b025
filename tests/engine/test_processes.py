"""Replicas as processes of their own: stopped in their tracks and woken, killed while they hold a lock, shut down."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import signal
import time
from collections.abc import Generator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from fastapi_cacheinval import HTTPCache
from tests.servers import Processes, Valkey, processes, until

BOUND = 1.5


class Fleet:
    """Processes of `served`, and the files that are their data."""

    def __init__(self, fleet: Processes, place: Path) -> None:
        self.processes = fleet
        self.place = place
        self._client = httpx.Client(timeout=20, headers={"host": "shop.test"})

    def get(self, number: int, name: str = "a", **headers: str) -> httpx.Response:
        """What one of them answers."""
        return self._client.get(f"{self.processes.urls[number]}/items/{name}", headers=headers)

    def put(self, number: int, version: int, name: str = "a") -> httpx.Response:
        """A mutation on one of them."""
        return self._client.put(f"{self.processes.urls[number]}/items/{name}", params={"version": version})

    def statistics(self, number: int) -> Any:
        """How one of them stands."""
        return self._client.get(f"{self.processes.urls[number]}/statistics").json()

    def live(self, number: int) -> bool:
        """Whether one of them holds a lease."""
        return bool(self.statistics(number)["live"])

    def calls(self, name: str) -> list[int]:
        """The process ids in which the handler has run, in order."""
        path = self.place / f"{name}.calls"
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    def hold(self, name: str) -> Path:
        """Handlers wait, once they have read, while this file is there."""
        path = self.place / f"{name}.hold"
        path.touch()
        return path

    def close(self) -> None:
        """End the client."""
        self._client.close()


@pytest.fixture
def fleet(redis_server: Valkey, tmp_path: Path) -> Generator[Fleet]:
    """Three processes in touch with the log."""
    environment = {"REDIS": redis_server.url, "PLACE": str(tmp_path), "BOUND": str(BOUND)}
    with processes("tests.engine.served:app", 3, environment=environment, path="/statistics") as running:
        made = Fleet(running, tmp_path)
        with contextlib.closing(made):
            until(lambda: all(map(made.live, range(3))), "leases")
            yield made


def test_a_process_that_was_stopped_longer_than_the_bound_serves_nothing_old(fleet: Fleet) -> None:
    """SIGSTOP, a purge meanwhile, SIGCONT: its first answer is new, and its lease was not waited for any longer."""
    assert fleet.get(1).json()["version"] == 0
    until(lambda: "hit" in fleet.get(1).headers["cache-status"], "a hit")
    fleet.processes.pause(1)
    stopped = time.monotonic()
    answer = fleet.put(0, 1)
    assert answer.headers["cacheinval-purge"] == "done"
    _others_go_on(fleet, stopped + BOUND + 0.2)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        # Requests that wait for it when it wakes, before it has had time for anything.
        asked = [pool.submit(fleet.get, 1) for _ in range(8)]
        time.sleep(0.2)  # until the kernel has taken the connections for it; more would change nothing
        fleet.processes.resume(1)
        assert {each.result(20).json()["version"] for each in asked} == {1}
    until(partial(fleet.live, 1), "a lease")
    assert fleet.get(1).json()["version"] == 1


def _others_go_on(fleet: Fleet, end: float) -> None:
    """Replicas 0 and 2 answer with what is new, until `end` on the monotonic clock."""
    while True:
        assert fleet.get(0).json()["version"] == 1
        assert fleet.get(2).json()["version"] == 1
        left = end - time.monotonic()
        if left <= 0:
            return
        time.sleep(min(left, 0.05))


def test_a_process_that_was_stopped_while_a_hundred_megabytes_passed_comes_back(
    fleet: Fleet, redis_server: Valkey
) -> None:
    """It serves nothing old, and has its lease again within seconds, whatever has piled up for it meanwhile."""
    assert fleet.get(1).json()["version"] == 0
    until(lambda: "hit" in fleet.get(1).headers["cache-status"], "a hit")
    fleet.processes.pause(1)
    stopped = time.monotonic()
    asyncio.run(_passing(redis_server))
    assert fleet.put(0, 1).headers["cacheinval-purge"] == "done"
    # A fast machine writes all of it within the bound, in which a replica that hears nothing may serve what it has.
    _others_go_on(fleet, stopped + BOUND + 0.2)
    fleet.processes.resume(1)
    resumed = time.monotonic()
    assert fleet.get(1).json()["version"] == 1
    until(partial(fleet.live, 1), "a lease", seconds=15)
    assert time.monotonic() - resumed < 15
    until(lambda: fleet.statistics(1)["applied"] == fleet.statistics(0)["applied"], "the end of the log", seconds=15)


async def _passing(server: Valkey) -> None:
    """A hundred megabytes go through the log, in the largest lines that there are."""
    tags = [f"{number:01000}" for number in range(65)]
    async with HTTPCache.from_url(server.url) as cache:
        for _ in range(1_600):
            await cache.deliver(*tags)


def test_a_process_that_is_killed_in_a_fill_holds_nobody_longer_than_the_bound(fleet: Fleet) -> None:
    """A `kill -9` of the one that forwards: its lock lapses, one of those who wait goes forward for all of them."""
    hold = fleet.hold("a")
    with concurrent.futures.ThreadPoolExecutor(20) as pool:
        leading = pool.submit(fleet.get, 0)
        until(lambda: len(fleet.calls("a")) == 1, "the leader")
        waiting = [pool.submit(fleet.get, 1 + number % 2) for number in range(12)]
        until(lambda: fleet.statistics(1)["under_way"] == fleet.statistics(2)["under_way"] == 1, "those who wait")
        fleet.processes.kill(0)
        killed = time.monotonic()
        with pytest.raises(httpx.HTTPError):
            leading.result(20)
        until(lambda: len(fleet.calls("a")) >= 2, "the next leader", seconds=10)
        assert time.monotonic() - killed < BOUND + 2
        hold.unlink()
        answers = [each.result(20) for each in waiting]
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["pid"] for answer in answers}) == 1
    assert len(fleet.calls("a")) == 2


def test_a_cold_burst_over_processes_is_one_forward(fleet: Fleet) -> None:
    """Sixty requests for one key at three processes: one handler call in one of them."""
    hold = fleet.hold("hot")
    with concurrent.futures.ThreadPoolExecutor(60) as pool:
        asked = [pool.submit(fleet.get, number % 3, "hot") for number in range(60)]
        until(lambda: all(fleet.statistics(number)["under_way"] == 1 for number in range(3)), "a flight in each")
        hold.unlink()
        answers = [each.result(20) for each in asked]
    assert len({answer.json()["pid"] for answer in answers}) == 1
    assert len(fleet.calls("hot")) == 1


def test_a_client_reads_its_own_write_on_another_process(fleet: Fleet) -> None:
    """Thirty writes, each read elsewhere at once with the token of the write."""
    for version in range(1, 31):
        written = fleet.put(version % 3, version)
        got = fleet.get((version + 1) % 3, **{"cacheinval-token": written.headers["cacheinval-token"]})
        assert got.json()["version"] == version


def test_a_rolling_restart_loses_nothing(fleet: Fleet, redis_server: Valkey) -> None:
    """One after the other is shut down and started: each leaves the log in order, and finds what the others have stored."""
    for number in range(3):
        written = fleet.put((number + 1) % 3, number + 1)
        assert written.headers["cacheinval-purge"] == "done"
        # With its token: without one another process may be milliseconds behind.
        got = fleet.get((number + 2) % 3, **{"cacheinval-token": written.headers["cacheinval-token"]})
        assert got.json()["version"] == number + 1
        # uvicorn ends itself by the signal once it has shut down.
        assert fleet.processes.terminate(number) in (0, -signal.SIGTERM)
        assert len(redis_server.execute("HGETALL", "{cacheinval}:acks")) == 3
        output = fleet.processes.children[number].output
        assert "Traceback" not in output, output
        fleet.processes.restart(number)
        until(partial(fleet.live, number), "a lease")
        answer = fleet.get(number)
        assert answer.json()["version"] == number + 1
    # Each version was read once by a handler, whoever asked.
    assert len(fleet.calls("a")) == 3


@pytest.mark.parametrize("seconds", [BOUND + 1, 6.0], ids=["past the bound", "past every wait"])
def test_a_leader_that_is_stopped_costs_one_more_forward(fleet: Fleet, seconds: float) -> None:
    """SIGSTOP of the one that forwards: the others make the page once more; its own waiters have its answer when it wakes."""
    hold = fleet.hold("hot")
    with concurrent.futures.ThreadPoolExecutor(60) as pool:
        leading = pool.submit(fleet.get, 0, "hot")
        until(lambda: len(fleet.calls("hot")) == 1, "the leader")
        asked = [leading, *(pool.submit(fleet.get, number % 3, "hot") for number in range(1, 60))]
        until(lambda: fleet.statistics(1)["under_way"] == fleet.statistics(2)["under_way"] == 1, "those who wait")
        until(lambda: fleet.statistics(0)["waiting"] == 19, "those who wait for the leader")
        fleet.processes.pause(0)
        stopped = time.monotonic()
        hold.unlink()
        others = [each for number, each in enumerate(asked) if number % 3]
        assert {each.result(20).status_code for each in others} == {200}
        time.sleep(max(0.0, stopped + seconds - time.monotonic()))  # what is tested is that time passes
        fleet.processes.resume(0)
        assert {each.result(20).status_code for each in asked} == {200}
    assert len(fleet.calls("hot")) == 2
