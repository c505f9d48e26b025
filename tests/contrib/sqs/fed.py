"""Replicas of which one listens to a queue."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi_cacheinval import SourceState
from fastapi_cacheinval.contrib.sqs import SQSSource
from fastapi_cacheinval.testing import assert_hit
from tests.contrib.sqs.cloud import SOON
from tests.helpers.fleet import PATIENCE, Node, eventually, fleet


class Fed:
    """Two replicas, the first with a source, the second without."""

    def __init__(self, nodes: list[Node], source: SQSSource) -> None:
        self.nodes = nodes
        self.source = source
        self.first, self.second = nodes

    @property
    def state(self) -> SourceState:
        """How the source stands, as statistics tell."""
        state = self.first.statistics.sources[self.source.name]
        assert isinstance(state, SourceState)
        return state

    async def changed(self, *names: str) -> None:
        """Have both replicas keep a response of each, and change what they were made of: nobody knows of that."""
        for node in self.nodes:
            await node.in_touch()
            for name in names:
                await node.ask(f"/items/{name}")
                assert_hit(await node.ask(f"/items/{name}"))
        for name in names:
            self.first.data.versions[name] += 1
        await self.still_old(*names)

    async def still_old(self, *names: str) -> None:
        """Both replicas answer each from before the change."""
        for node in self.nodes:
            for name in names:
                answer = await node.ask(f"/items/{name}")
                assert_hit(answer)
                assert self._version(answer) < self.first.data.versions[name]

    async def fresh(self, *names: str) -> None:
        """Wait until both replicas answer each from after the change."""
        deadline = time.monotonic() + PATIENCE
        for node in self.nodes:
            for name in names:
                while self._version(await node.ask(f"/items/{name}")) < self.first.data.versions[name]:
                    assert time.monotonic() < deadline, f"{node} still answers {name} from before the change"
                    await asyncio.sleep(0.005)

    async def done(self, count: int = 1) -> None:
        """Wait until the source is done with so many."""
        await eventually(lambda: self.state.done >= count, f"the end of {count}")

    @staticmethod
    def _version(answer: Any) -> int:
        return json.loads(answer.body)["version"]


@asynccontextmanager
async def fed(
    url: str, queue_url: str, *, clocks: bool = False, cache: Any = None, **options: Any
) -> AsyncIterator[Fed]:
    """Two replicas over a Redis, and a queue that the first listens to; `cache` is the options of their caches."""
    sources: list[SQSSource] = []

    def attach(node: Node) -> None:
        if not sources:
            sources.append(SQSSource(node.cache, queue_url, **{**SOON, **options}))
            node.cache.attach(sources[0])

    async with fleet(url, 2, routes=attach, clocks=clocks, **(cache or {})) as nodes:
        yield Fed(nodes, sources[0])
