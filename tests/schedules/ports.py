"""A replica's ports to Redis with gates around each call, before it is sent and after its reply has arrived.

Labels are `<who>.<what>.ask` and `<who>.<what>.reply`: `A.beat`, `A.purge`, `A.page`, `A.write`, `A.release` and
`A.renew` are the replica's own, `F.read` and `F.claim` those of the request that makes them. What is published to a
replica stops at `A.message` and `A.woken`, each message by itself, so that they can be reordered, lost and doubled.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from functools import partial
from typing import Any

from fastapi_cacheinval.core.log_types import AppliedByAll, Ask, LogEntry, Page
from fastapi_cacheinval.errors import CacheinvalError
from fastapi_cacheinval.ports.l2_store import Found, L2Store, Lock
from fastapi_cacheinval.ports.log import Answer, Proposal, SharedLog, Standing
from tests.schedules.stage import LOST, TWICE, Stage, Subscriptions


class Actor(str):
    """The name of who acts. It is closed with its part, so that a refresh that it causes acts for itself."""

    __slots__ = ()

    def close(self) -> None: ...


actor: ContextVar[Actor | None] = ContextVar("actor", default=None)
MARK = "mark"


class _Gated:
    def __init__(self, name: str, stage: Stage, subscriptions: Subscriptions) -> None:
        self.name = name
        self.stage = stage
        self.subscriptions = subscriptions

    async def called(self, who: str, what: str, call: Callable[[], Any]) -> Any:
        await self.stage.gate(f"{who}.{what}.ask")
        with self.stage.talking():
            answer = await call()
        await self.stage.gate(f"{who}.{what}.reply")
        return answer

    async def published(
        self, what: str, genuine: AsyncIterator[Any], mark: Callable[[Any], int | None]
    ) -> AsyncIterator[Any]:
        """What is published, each by itself through its gate, on its own way to the reader."""
        delivered: asyncio.Queue[Any] = asyncio.Queue()
        pump = asyncio.create_task(self._pumped(what, genuine, mark, delivered))
        try:
            while True:
                message = await delivered.get()
                if isinstance(message, CacheinvalError):
                    raise message
                yield message
        finally:
            self.subscriptions.ended(self)
            pump.cancel()
            await asyncio.wait((pump,))

    async def _pumped(
        self, what: str, genuine: AsyncIterator[Any], mark: Callable[[Any], int | None], delivered: asyncio.Queue[Any]
    ) -> None:
        try:
            async for message in genuine:
                number = None if message is None else mark(message)
                if number is not None:
                    self.subscriptions.arrived(self, number)
                    continue
                if message is None:
                    self.subscriptions.begun(self)
                place = None if message is None else self.stage.park(f"{self.name}.{what}")
                if place is None:
                    delivered.put_nowait(message)
                else:
                    place.add_done_callback(partial(_deliver, delivered, message))
        except CacheinvalError as error:
            delivered.put_nowait(error)


def _deliver(delivered: asyncio.Queue[Any], message: Any, place: asyncio.Future[Any]) -> None:
    how = LOST if place.cancelled() else place.result()
    for _ in range({LOST: 0, TWICE: 2}.get(how, 1)):
        delivered.put_nowait(message)


class GatedLog(_Gated):
    """A `SharedLog`; `answers` are the log's, in the order in which it gave them."""

    def __init__(self, genuine: SharedLog, name: str, stage: Stage, subscriptions: Subscriptions) -> None:
        super().__init__(name, stage, subscriptions)
        self._genuine = genuine
        self.answers: list[Answer] = []

    async def run(self, ask: Ask, replica: str, purge: Proposal | None = None, **more: Any) -> Answer:
        async def call() -> Answer:
            if purge is not None:
                self.subscriptions.pending = True
            self.answers.append(await self._genuine.run(ask, replica, purge, **more))
            return self.answers[-1]

        return await self.called(self.name, "beat" if purge is None else "purge", call)

    async def messages(self, replica: str, **more: Any) -> AsyncIterator[LogEntry | AppliedByAll | None]:
        def mark(line: LogEntry | AppliedByAll) -> int | None:
            return line.seq if isinstance(line, LogEntry) and line.term.nonce == MARK else None

        async for line in self.published("message", self._genuine.messages(replica, **more), mark):
            yield line

    async def page(self, *where: Any) -> Page | None:
        return await self.called(self.name, "page", lambda: self._genuine.page(*where))

    async def behind(self, line: LogEntry) -> Standing:
        with self.stage.talking():
            return await self._genuine.behind(line)

    async def leave(self, replica: str) -> None:
        await self._genuine.leave(replica)

    async def close(self) -> None:
        await self._genuine.close()


class GatedStore(_Gated):
    """An `L2Store`."""

    def __init__(self, genuine: L2Store, name: str, stage: Stage, subscriptions: Subscriptions) -> None:
        super().__init__(name, stage, subscriptions)
        self._genuine = genuine

    async def read(self, key: bytes) -> Found | None:
        return await self.called(actor.get() or self.name, "read", lambda: self._genuine.read(key))

    async def write(self, key: bytes, data: bytes, life_ms: int) -> None:
        await self.called(self.name, "write", lambda: self._genuine.write(key, data, life_ms))

    async def claim(self, key: bytes, owner: str, seconds: float, seen: bytes) -> Found | Lock:
        return await self.called(
            actor.get() or self.name, "claim", lambda: self._genuine.claim(key, owner, seconds, seen)
        )

    async def renew(self, key: bytes, owner: str, seconds: float) -> bool:
        return await self.called(self.name, "renew", lambda: self._genuine.renew(key, owner, seconds))

    async def release(
        self, key: bytes, owner: str, *, data: bytes = b"", life_ms: int = 0, refused_ms: int = 0
    ) -> None:
        async def call() -> None:
            self.subscriptions.pending = True
            await self._genuine.release(key, owner, data=data, life_ms=life_ms, refused_ms=refused_ms)

        await self.called(self.name, "release", call)

    async def woken(self) -> AsyncIterator[bytes]:
        def mark(key: bytes) -> int | None:
            return int(key[len(MARK) :]) if key.startswith(MARK.encode()) else None

        async for key in self.published("woken", self._genuine.woken(), mark):
            yield key

    async def close(self) -> None:
        await self._genuine.close()
