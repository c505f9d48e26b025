"""The story's last chapter: Redis is killed, a price changes all the same, Redis comes back."""

from __future__ import annotations

import asyncio
import time

from example_app.asking import PATIENCE, Answer, Asker
from example_app.open_page import OpenPage
from example_app.watching import Watch
from fastapi_cacheinval.testing import Replicas

BOUND = 2.0
# Enough to see every change, and little enough to leave the machine to the replicas.
PAUSE = 0.01


class Outage:
    """Plays it on one car; every replica is asked for it all the time."""

    def __init__(self, replicas: Replicas, asker: Asker, path: str) -> None:
        self.replicas = replicas
        self.asker = asker
        self.out = asker.out
        self.path = path
        self.names = list(asker.urls)

    async def play(self) -> None:
        """Tell it."""
        self.out.heading("Redis is killed, and comes back empty: nothing is down, nothing is stale")
        async with (
            Watch(self.asker, self.path, self.names, PAUSE) as watch,
            OpenPage(self.asker, self.asker.first) as page,
        ):
            killed = time.perf_counter()
            await self.replicas.kill_redis()
            self.out.say("Redis is killed")
            away = await page.until(connected=False, since=killed)
            for name in self.names:
                if (sight := await watch.until(name, lambda sight: sight.answer.disconnected)) is not None:
                    self.asker.told(sight.answer)
            reduced = await self._change(25)
            written, price = time.perf_counter(), int(reduced.body["price"])
            await self.asker.ask("GET", self.path, note="its own write, at once")
            for name in self.asker.others:
                if (sight := await watch.until_price(name, price)) is not None:
                    self.asker.told(sight.answer)
            await self.replicas.restart_redis(empty=True)
            self.out.say("Redis is started again, without its data")
            returned = time.perf_counter()
            connected = await self._connected()
            back = time.perf_counter() - returned
            again = await page.until(connected=True, since=returned)
            for name in self.names:
                await self.asker.ask_until(self.path, lambda answer: answer.hit, at=name)
            ended = time.perf_counter()
            restored = await self._change(0)
            await asyncio.gather(*(watch.until_price(name, restored.body["price"]) for name in self.names))
        self.out.fact("a discount was written meanwhile, and said that its purge waits", so=reduced.purge == "queued")
        self._judge(watch, price, written, ended)
        self.out.fact(f"all in touch again {back:.1f} s after Redis was back, the purge delivered", so=connected)
        seen = "never" if away is None else f"{away - killed:.1f} s later"
        self.out.fact(
            f"the inspector's page, open all the while, said that Redis was away ({seen}), and that it was back",
            so=away is not None and again is not None,
        )
        self.out.fact("the next discount's purge was done at once", so=restored.purge == "done")

    async def _change(self, percent: int) -> Answer:
        return await self.asker.ask("POST", f"{self.path}/discount", who="admin", json={"percent": percent})

    async def _connected(self) -> bool:
        """Wait until each replica is in touch with Redis and has delivered its purges."""
        for name in self.names:
            give_up = time.monotonic() + PATIENCE
            while not await self._in_touch(name):
                if time.monotonic() > give_up:
                    return False
                await asyncio.sleep(PAUSE)
        return True

    async def _in_touch(self, name: str) -> bool:
        state = (await self.asker.send("GET", "/debug/replicas", at=name)).body
        return bool(state["connected"]) and not state["queued_purges"]

    def _judge(self, watch: Watch, price: int, written: float, ended: float) -> None:
        first, others = self.asker.first, self.asker.others
        own = watch.others_than(price, since=written, until=ended, names=[first])
        old = watch.others_than(price, since=written, until=ended, names=others)
        last = max((sight.answer.began - written for sight in old), default=0.0)
        self.out.fact(
            f"nothing down: {watch.count} requests to all replicas, each answered with the car, "
            f"the slowest in {watch.slowest:.0f} ms",
            so=watch.all_well,
        )
        self.out.fact(f"nothing stale: {first} showed the old price {len(own)} times after its own write", so=not own)
        self.out.fact(
            f"{' and '.join(others)}, cut off, showed it to requests up to {last:.1f} s after the write; "
            f"the bound is {BOUND:.0f} s",
            so=last <= BOUND,
        )
