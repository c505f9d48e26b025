"""A Valkey for the races, and replicas of one app that share it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fastapi_cacheinval.engine.flights import Flight
from tests.schedules.cluster import Cluster
from tests.servers.fixtures import *  # noqa: F403
from tests.servers.valkey import Valkey


@pytest.fixture
def cluster(redis_server: Valkey, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Cluster]:
    """What makes replicas of the names it is given: `async with` them."""

    def make(*names: str, settings: dict[str, Any] | None = None, **policy: Any) -> Cluster:
        play = Cluster(redis_server, names, policy, settings or {})
        wait = Flight.wait

        async def gated(self: Flight, seconds: float) -> Any:
            result = await wait(self, seconds)
            await play.gate("wakes")
            return result

        # A gate between the moment when a waiter is told and the moment when it looks.
        monkeypatch.setattr(Flight, "wait", gated)
        return play

    return make
