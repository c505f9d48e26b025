"""The inspector's page as a browser has it open: the story listens to what it is told."""

from __future__ import annotations

import asyncio
import json
import time
from types import TracebackType
from typing import Self

import httpx

from example_app.asking import PATIENCE, Asker
from example_app.seed import USERS

INSPECTOR = "/_cache/"
OPERATOR = "admin"


class OpenPage:
    """While the block runs it holds the stream of one replica's inspector, and notes when Redis goes and comes."""

    def __init__(self, asker: Asker, name: str) -> None:
        self._url = f"{asker.urls[name]}{INSPECTOR}api/events"
        # Whether Redis was in touch, and when that was said for the first time.
        self._said: list[tuple[bool, float]] = []
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._listen())
        await self.until(connected=True)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _listen(self) -> None:
        auth = httpx.BasicAuth(OPERATOR, USERS[OPERATOR][0])
        async with (
            httpx.AsyncClient(auth=auth, timeout=30, trust_env=False) as client,
            client.stream("GET", self._url) as stream,
        ):
            name = ""
            async for line in stream.aiter_lines():
                field, _, value = line.partition(": ")
                if field == "event":
                    name = value
                elif field == "data" and name == "state":
                    self._note(connected=bool(json.loads(value)["connected"]))

    def _note(self, *, connected: bool) -> None:
        if not self._said or self._said[-1][0] != connected:
            self._said.append((connected, time.perf_counter()))

    async def until(self, *, connected: bool, since: float = 0.0) -> float | None:
        """When the page was told so, after a moment; None when patience ends."""
        give_up = time.monotonic() + PATIENCE
        while time.monotonic() < give_up:
            for known, when in self._said:
                if known is connected and when >= since:
                    return when
            await asyncio.sleep(0.01)
        return None
