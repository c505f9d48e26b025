"""`CDNPurger`: what the cache purges, its CDNs purge too, after every replica."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import timedelta
from functools import partial
from types import TracebackType
from typing import Any, Self

from fastapi_cacheinval import CacheNotRunning, HTTPCache, Receipt, SourceState
from fastapi_cacheinval.contrib.cdn._checks import checked_cdns, checked_seconds, checked_url
from fastapi_cacheinval.contrib.cdn._client import Client, Unreachable
from fastapi_cacheinval.contrib.cdn._entries import Order
from fastapi_cacheinval.contrib.cdn._gathering import Gathered
from fastapi_cacheinval.contrib.cdn._lane import Lane
from fastapi_cacheinval.contrib.cdn._ledger import Ledger, Poison
from fastapi_cacheinval.contrib.cdn._settling import everywhere
from fastapi_cacheinval.contrib.cdn.keys import purge_of
from fastapi_cacheinval.contrib.cdn.requests import CDN, Answer, Done, PurgeRequest, Rate
from fastapi_cacheinval.sources import KEEP, Attached, OnUnreadable, Unread, UnreadableEvent
from fastapi_cacheinval.sources.handlers import Decision, answer_to, on_unreadable_of

__all__ = ["CDNPurger"]

logger = logging.getLogger("fastapi_cacheinval.contrib.cdn")

# Real seconds between two looks at whether a purger that stops is done.
_LOOK = 0.01


class CDNPurger(Attached):
    """Purges one CDN or several of what is purged on this replica, once every replica has applied it, and once more.

    `cache.attach(CDNPurger(cache, cdn))` is all. The second purge comes `again_after` seconds after the first was
    confirmed, by default the cache's `staleness_bound`; 0 switches it off. `rate` replaces the adapters' own. Past
    `most_keys` tags that wait for a CDN they become one purge of everything. `timeout` is seconds for one request,
    `verify` an SSL context where the CDN's certificate needs one, `proxy` the URL of a proxy. `on_unreadable`
    answers for a tag that a CDN refuses while it takes others, given the tag and an error with the reason: `KEEP`, as
    without it, tries it again now and then, `DROP` does not, and a `Change` is purged at the CDN in its place. Where it
    raises it is asked again. `on_poison` is its old name. In `statistics().sources` the counts are tags, once
    for each CDN. Raises `ConfigurationError` for what cannot work.
    """

    def __init__(
        self,
        cache: HTTPCache,
        cdn: CDN | Iterable[CDN],
        *,
        again_after: float | timedelta | None = None,
        rate: Rate | None = None,
        most_keys: int = 50_000,
        timeout: float = 10.0,
        verify: ssl.SSLContext | None = None,
        proxy: str | None = None,
        on_unreadable: OnUnreadable | None = None,
        name: str = "cdn",
        on_poison: Any = None,
    ) -> None:
        super().__init__(cache, name)
        cache.expect_waiting()
        self._bound = float(cache.settings.staleness_bound)
        again = checked_seconds(self._bound if again_after is None else again_after)
        cdns = checked_cdns(cdn, most_keys, timeout, verify)
        if proxy is not None:
            checked_url(proxy, "A proxy", login=True)
        self._client = partial(Client, timeout=timeout, verify=verify, proxy=proxy)
        # What the last call of it has failed with.
        self._unasked = ""
        self._on_unreadable = on_unreadable_of(on_unreadable, on_poison, _as_before)
        self._most = most_keys
        self._lanes = [Lane(each, Ledger(most_keys, again), rate or each.rate, self, cache) for each in cdns]
        # What has come, and what of it waits for the replicas.
        self._gathered = Gathered(most_keys)
        self._settling = Gathered(most_keys)
        self._callers: dict[Order, asyncio.Future[None]] = {}
        self._listening = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process = 0
        self._arrived = asyncio.Event()
        # Set but while it runs.
        self._closing = asyncio.Event()
        self._closing.set()

    def state(self) -> SourceState:
        """How it stands; `waiting` tags are not confirmed yet."""
        lanes = self._lanes
        self.note(waiting=sum(lane.waiting for lane in lanes) + self._unsettled * len(lanes))
        return super().state()

    @property
    def _unsettled(self) -> int:
        return len(self._gathered.entries) + len(self._settling.entries)

    # -- life -----------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        self._arrived, self._closing = asyncio.Event(), asyncio.Event()
        if self._gathered.entries:
            self._arrived.set()
        for lane in self._lanes:
            lane.begin()
        await super().__aenter__()
        self._loop, self._process = asyncio.get_running_loop(), os.getpid()
        if not self._listening:
            # For good: what is purged after this is left is told at once.
            self.cache.add_listener(self.heard)
            self._listening = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        try:
            await self._last_while()
        finally:
            self._loop = None
            await super().__aexit__(kind, error, trace)
            self._leave_behind()

    async def _last_while(self) -> None:
        for lane in self._lanes:
            lane.hurry()
        # Of what was purged just now the cache has not told yet.
        await asyncio.sleep(0)
        # What is due for the second time keeps its time as long as there is some.
        if not await self._quiet_within(self._bound * 0.75):
            for lane in self._lanes:
                lane.last_call()
            await self._quiet_within(self._bound * 0.25)

    def _leave_behind(self) -> None:
        left = self.state().waiting
        if left:
            logger.error("%s stopped with %d purge(s) of tags that the CDN has not confirmed", self.name, left)
        for caller in self._callers.values():
            if not caller.done():
                caller.set_exception(CacheNotRunning(f"{self.name} stopped before the CDN had confirmed the purge."))

    async def _quiet_within(self, seconds: float) -> bool:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while self._unsettled or not all(lane.idle for lane in self._lanes):
            if loop.time() >= deadline:
                return False
            await asyncio.sleep(_LOOK)  # several things have to be quiet at once
        return True

    # -- what comes -----------------------------------------------------------------------------

    async def heard(self, receipt: Receipt) -> None:
        """Take a purge of the cache, and tell the CDN later, or at once where this does not run (any more)."""
        loop = self._loop
        if loop is None or loop.is_closed() or self._process != os.getpid():
            await self._tell_at_once(receipt)
        elif loop is asyncio.get_running_loop():
            self._accept(receipt, None)
        else:
            loop.call_soon_threadsafe(self._accept, receipt, None)

    async def purge(self, receipt: Receipt) -> None:
        """Return once every CDN has confirmed a purge of the cache, however long that takes: for `then=` of a source.

        A tag that a CDN refuses while it takes others is reported and not waited for. Raises `CacheNotRunning` where
        the purger does not run on this loop, or stops meanwhile.
        """
        if self._loop is not asyncio.get_running_loop():
            raise CacheNotRunning(f"{self.name} does not run on this loop: attach it to the cache, or enter it.")
        order = Order()
        self._accept(receipt, order)
        if not order.left:
            return
        self._callers[order] = asyncio.get_running_loop().create_future()
        try:
            await self._callers[order]
        finally:
            del self._callers[order]

    def _accept(self, receipt: Receipt, order: Order | None) -> None:
        self.count(received=self._gathered.add(receipt, order, lanes=len(self._lanes)) * len(self._lanes))
        self._arrived.set()

    # -- what goes ------------------------------------------------------------------------------

    async def serve(self) -> None:
        # Until it has failed it counts as in touch: there may be nothing to tell for hours.
        self._note_trouble()
        async with self._client() as client, asyncio.TaskGroup() as group:
            group.create_task(self._settle())
            for lane in self._lanes:
                group.create_task(lane.run(self._asker(client)))

    def _asker(self, client: Client) -> Callable[[PurgeRequest], Awaitable[Answer]]:
        async def ask(request: PurgeRequest) -> Answer:
            with self.cache.span("cacheinval.cdn.purge") as span:
                span.note("cacheinval.cdn.tags", len(request.tags))
                answer = await client.ask(request)
                span.note("http.response.status_code", answer.status)
                return answer

        return ask

    async def _settle(self) -> None:
        """Hand over to the lanes what every replica has applied; what comes meanwhile goes together after it."""
        while True:
            if self._settling.newest is None:
                await self._arrived.wait()
                self._arrived.clear()
                self._settling, self._gathered = self._gathered, Gathered(self._most)
            if self._settling.newest is not None:
                sure = await everywhere(self.cache, self._settling.newest, self._closing)
                if not sure:
                    logger.warning("%s stops, and purges before all replicas are known to have done so", self.name)
            settled, self._settling = self._settling, Gathered(self._most)
            for lane in self._lanes:
                lane.add(settled.entries)

    async def _tell_at_once(self, receipt: Receipt) -> None:
        """Make one attempt, and wait for the replicas no longer than at an end."""
        # Its own event may be that of a loop that is gone, or of the parent process.
        closing = asyncio.Event()
        closing.set()
        requests = [(lane.cdn, request) for lane in self._lanes for request in lane.cdn.requests(purge_of(receipt))]
        undone = len(requests)
        try:
            async with asyncio.timeout(self._bound), self._client() as client:
                await everywhere(self.cache, receipt, closing)
                for cdn, request in requests:
                    verdict = cdn.judge(request, await client.ask(request))
                    undone -= isinstance(verdict, Done)
        except (TimeoutError, Unreachable) as error:
            logger.debug("%s could not be told at once: %s", self.name, error)
        if undone:
            logger.error("%s does not run here: %d purge request(s) were not confirmed by the CDN", self.name, undone)

    # -- what lanes tell ------------------------------------------------------------------------

    def confirmed(self, lane: Lane, count: int, orders: Sequence[Order]) -> None:
        """The CDN has done so many purges of tags."""
        if lane.trouble:
            logger.info("%s: %r takes purges again", self.name, lane.cdn)
        lane.trouble = ""
        self.count(done=count)
        self._note_trouble()
        self._release(orders)

    def failed(self, lane: Lane, reason: str) -> None:
        """An attempt has failed, and is made again; said once, until the CDN takes something."""
        level = logging.DEBUG if lane.trouble else logging.ERROR
        logger.log(
            level, "%s: %r does not take purges, which are kept and tried again: %s", self.name, lane.cdn, reason
        )
        lane.trouble = reason
        self.note(failures=self._state.failures + 1)
        self._note_trouble()

    async def poisoned(self, lane: Lane, poison: Poison) -> Decision | None:
        """The CDN refuses a tag while it takes others: nobody waits for it, and it is tried again now and then."""
        self._release(poison.done)
        if not poison.first:
            self.count(refused=poison.count)
            return KEEP
        refused = f"{self.name}: {lane.cdn!r} refuses a tag of {len(poison.tag)} bytes by itself: {poison.reason}"
        self.refuse(refused, poison.count)
        try:
            answer: Decision | None = await answer_to(
                self._on_unreadable, poison.tag, UnreadableEvent(poison.reason), KEEP
            )
        except Exception as error:  # whatever the user's function raises: it is asked again
            logger.exception("%s: on_unreadable failed", self.name)
            self._unasked = f"on_unreadable: {type(error).__name__}"
            self.note(failures=self._state.failures + 1)
            answer = None
        else:
            self._unasked = ""
        self._note_trouble()
        return answer

    def _note_trouble(self) -> None:
        troubles = [f"{lane.cdn!r}: {lane.trouble}" for lane in self._lanes if lane.trouble]
        told = [*troubles, self._unasked] if self._unasked else troubles
        self.note(connected=not troubles, trouble="; ".join(told)[:500])

    def _release(self, orders: Sequence[Order]) -> None:
        for order in orders:
            caller = self._callers.get(order)
            if caller is not None and not caller.done():
                caller.set_result(None)


async def _as_before(on_poison: Any, tag: object, error: Exception) -> Unread:
    await on_poison(tag, str(error))
    return KEEP
