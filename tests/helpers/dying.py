"""A process that is killed at a step of its event loop, again and again: run as a program, driven by `tests.helpers.outbox`.

Each line of its input is one life, in JSON; it forks for each, and answers with one line: how the child ended.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import traceback
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.contrib.outbox import Outbox, OutboxRelay
from tests.helpers.fleet import eventually

WRITE = text("UPDATE product SET price = :price WHERE id = 1")


class Death:
    """Kills this process before a given step of its event loop, counted from `begin`: every await goes on in one."""

    def __init__(self, step: int) -> None:
        self._left = step
        self._counting = False
        run: Any = asyncio.Handle._run

        def counted(handle: Any) -> None:
            if self._counting:
                self._left -= 1
                if self._left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
            run(handle)

        handles: Any = asyncio.Handle
        handles._run = counted

    def begin(self) -> None:
        """From here on."""
        self._counting = True

    def end(self) -> None:
        """It has lived through it."""
        self._counting = False


async def with_the_outbox(life: dict[str, Any], death: Death) -> None:
    """Write a price and what is to be purged, commit, relay, delete."""
    engine = create_async_engine(life["database"])
    outbox = Outbox()
    cache = HTTPCache.from_url(life["redis"])
    relay = OutboxRelay(cache, engine, outbox)
    cache.attach(relay)
    async with cache:
        async with AsyncSession(engine) as session:
            await session.execute(WRITE, {"price": life["price"]})
            await outbox.add_async(session, ["product:1"])
            death.begin()
            await session.commit()
        relay.wake()
        await eventually(lambda: relay.state().done, "the deletion")
        death.end()
    await engine.dispose()


async def without_it(life: dict[str, Any], death: Death) -> None:
    """Write a price, commit, and only then purge."""
    engine = create_async_engine(life["database"])
    async with HTTPCache.from_url(life["redis"]) as cache:
        async with AsyncSession(engine) as session:
            await session.execute(WRITE, {"price": life["price"]})
            death.begin()
            await session.commit()
        await cache.invalidate("product:1")
        death.end()
    await engine.dispose()


def _live(life: dict[str, Any]) -> None:
    death = Death(life["step"])
    asyncio.run((with_the_outbox if life["outbox"] else without_it)(life, death))


def main() -> None:
    """Fork for each line."""
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                _live(json.loads(line))
                status = 0
            except Exception:  # noqa: BLE001  # whatever it is, the test shows it
                traceback.print_exc()
            finally:
                os._exit(status)
        _, ended = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(ended)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
