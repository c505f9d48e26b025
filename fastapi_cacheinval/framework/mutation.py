"""Unsafe requests: what they purge, and when.

The rules: a handler that ran purges what the route declares, what was added on the way, the target path
and its parent collection, whatever status leaves; one that refused, and a request that came to no handler, purge
only what was told to be committed (`core.extent` has the rest). Where something can still commit after
the response has begun, the response is held until the app returns: commit, purge, release. Past its bounds it is
released with its tags fenced, and purged again when the app returns. What is answered before the app is done, in
several messages, with a background task or in place of a handler that still runs, is purged again as well.
Purges run in tasks of the cache's own, so that they survive the request.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from enum import Enum
from typing import Any

from starlette.requests import Request
from starlette.types import Message

from fastapi_cacheinval.core.checks import Wait
from fastapi_cacheinval.core.extent import Extent
from fastapi_cacheinval.core.outcome import Outcome, Reason, Result
from fastapi_cacheinval.core.storing import is_small
from fastapi_cacheinval.core.token import Token
from fastapi_cacheinval.dependencies import Cached
from fastapi_cacheinval.errors import PurgeNotDelivered, ReplicasUnknown
from fastapi_cacheinval.framework.exchange import Exchange, can_be_read_again
from fastapi_cacheinval.framework.incoming import Incoming
from fastapi_cacheinval.framework.messages import SENT_PAST, MessageOrder, own_copy
from fastapi_cacheinval.framework.purging import Purge, Purging
from fastapi_cacheinval.framework.responding import status_fields

__all__ = ["Mutation"]

logger = logging.getLogger("fastapi_cacheinval.middleware")


class _State(Enum):
    WAITING = "no answer yet"
    HELD = "the answer waits for the commit"
    EARLY = "the answer went before the commit could be known"
    GONE = "the answer went after all that could commit"


class Mutation(Purging):
    """An unsafe request, and the purge that follows from it."""

    def __init__(self, incoming: Incoming, before: Exchange | None = None) -> None:
        super().__init__(incoming, before)
        self._order = MessageOrder()
        self._held: list[Message] = []
        self._held_bytes = 0
        self._state = _State.WAITING
        # Of its own purges, in the log.
        self._numbers: list[int] = []
        # What has become of them: "done", "queued", or "unconfirmed" by replicas that were to be waited for.
        self._became = "done"
        self._releasing: asyncio.Task[None] | None = None
        self._alarm: Any = None
        self._fence: int | None = None
        # More may be written after the answer has begun than its purge can know.
        self._goes_on = False
        self._mark: asyncio.Handle | None = None

    async def look_up(self, request: Request, cached: Cached, partition: tuple[Any, ...]) -> None:
        """`cached()` is inert on an unsafe method."""

    def _can_still_commit(self) -> bool:
        plan = self._plan()
        return plan is None or plan.commits_late

    # -- the app's messages ---------------------------------------------------------------------

    async def __call__(self, message: Message) -> None:
        """Take one message of the app's: a mutation is its own responder, since its response may be held."""
        message = can_be_read_again(message)
        in_place = self._order.take(message)
        if in_place:
            self._heard(message)
        if self._releasing is not None:
            await asyncio.shield(self._releasing)
        if self._state is _State.HELD:
            await self._hold(own_copy(message), in_place=in_place)
        elif message["type"] == "http.response.start" and self._state is _State.WAITING:
            await self._started(message)
        else:
            await self.outer(message)
            if self._state is _State.GONE and not self._goes_on:
                self._look_on(message)

    send = __call__

    def _heard(self, message: Message) -> None:
        """Hear one message of the response, before it goes on."""

    def _look_on(self, message: Message) -> None:
        """Find out whether the app goes on after what it has just sent."""
        if message["type"] == "http.response.start":
            self._goes_on = self._arrival.running
        elif message.get("more_body", False):
            self._goes_on = True
        elif self._mark is None:
            self._mark = self.runtime.loop.call_soon(self._still_on)

    def _still_on(self) -> None:
        self._goes_on = True

    async def _started(self, message: Message) -> None:
        status: int = message["status"]
        self._status = status
        headers = self._headers_of(message) if status < 400 else message.get("headers", ())
        extent = self._extent()
        if extent is Extent.ALL:
            # A route class that answers by itself has passed them by.
            self._declare_all()
        late = self._can_still_commit()
        known = late and bool(self._due(extent))
        small = is_small(status, headers, self.app_context.engine.settings.hold_max_bytes)
        if late and small and (known or self.app_context.cache.expects_changes):
            self._state = _State.HELD
            self._held.append(own_copy(message))
            self._alarm = self.app_context.cache.clock.call_later(
                self.app_context.engine.settings.hold_timeout, self._release_late
            )
        elif late and known and extent is not Extent.FACTS:
            await self._go_early()
            await self.outer(self._said(message, late=True))
        else:
            self._state = _State.GONE
            await self._written(self._taken(extent))
            await self.outer(self._said(message, late=False))

    async def _hold(self, message: Message, *, in_place: bool) -> None:
        if in_place:
            self._held.append(message)
            self._held_bytes += len(message.get("body", b""))
            small = self._held_bytes <= self.app_context.engine.settings.hold_max_bytes
            # A file by its path or its descriptor may be gone once the app has returned.
            if small and message["type"] not in SENT_PAST:
                return
        self._release_late()
        if self._releasing is not None:
            await asyncio.shield(self._releasing)
        if not in_place:
            # No part of the response: the server says what it would without a cache.
            await self.outer(message)

    def _said(self, message: Message, *, late: bool) -> Message:
        """The start of the answer with what has become of the purge; `late` says that the commit is still to come."""
        if not self._numbers and self._became == "done":
            # Nothing was purged, and nothing is said.
            return message
        # That the commit is still to come says more than that the log is out of reach.
        purge = "late" if late else self._became
        engine = self.app_context.engine
        self.app_context.counters.mutations[purge] += 1
        fields = [*message.get("headers", ()), (b"cacheinval-purge", b"queued" if late else purge.encode())]
        if purge != "done":
            detail = {"late": "late-purge", "queued": "disconnected"}.get(purge, purge)
            outcome = Outcome(Result.BYPASS, reason=Reason.METHOD, detail=detail)
            self.described(outcome)
            fields += status_fields(self.app_context, outcome)
        elif engine.settings.read_your_writes and self._numbers:
            fields.append((b"cacheinval-token", Token(engine.replica.term, max(self._numbers)).serialise()))
        return {**message, "headers": fields}

    # -- purging and releasing ------------------------------------------------------------------

    async def _written(self, purges: list[Purge], *fences: int | None) -> None:
        """Purge, and then lift fences; both happen even if this request is cancelled meanwhile."""
        if not purges and all(fence is None for fence in fences):
            return
        writing = self.runtime.own(self._write(purges, *fences))
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            # The request ends before its purge has a number: until then nobody is given what it names.
            fence = None if writing.done() else self._fenced(purges)
            if fence is not None:
                writing.add_done_callback(lambda _: self.app_context.engine.replica.lift(fence))
            raise

    async def _write(self, purges: list[Purge], *fences: int | None) -> None:
        for_all = self._waits_for_all or self._changes.waits
        for tags, soft in purges:
            # A replica that has applied the last line has applied those before it.
            wait: Wait = "all" if for_all and (tags, soft) == purges[-1] else None
            try:
                with self.current():
                    receipt = await self.app_context.cache.purger.purge(tags, soft=soft, wait=wait, by=self._named())
            except ReplicasUnknown as error:
                self._numbers.append(error.seq)
                self._became = self._became if self._became == "queued" else "unconfirmed"
                logger.warning("%s", error)
            except PurgeNotDelivered as error:
                # It is queued and fenced: the write stands, and the client is told.
                self._became = "queued"
                logger.debug("a purge is queued: %s", error.reason)
            else:
                self._numbers.append(receipt.seq)
        for fence in fences:
            if fence is not None:
                self.app_context.engine.replica.lift(fence)

    async def _go_early(self) -> None:
        """The answer goes before the commit: purge, and fence until the app returns."""
        self._state = _State.EARLY
        # What is committed from now on is purged by who commits it: background tasks may still be in front of the end.
        self._changes.close()
        purges = self._due(self._extent())
        self._fence = self._fenced(purges)
        # Not noted as purged: the commit is still to come, and all of it is purged once more then.
        await self._written(purges)

    def _release_late(self) -> None:
        if self._state is _State.HELD and self._releasing is None:
            self._releasing = self.runtime.own(self._release_before_commit())

    async def _release_before_commit(self) -> None:
        # The app may have ended between the alarm and this.
        if self._state is _State.HELD:
            await self._go_early()
            await self._release(late=True)

    async def _release(self, *, late: bool) -> None:
        held, self._held = self._held, []
        for index, message in enumerate(held):
            await self.outer(message if index else self._said(message, late=late))

    # -- the app's end --------------------------------------------------------------------------

    def _ended(self) -> tuple[bool, int | None]:
        """Nothing is released late from here on; whether an answer is held, and the fence that stands."""
        if self._alarm is not None:
            self._alarm.cancel()
        if self._mark is not None:
            self._mark.cancel()
        held = self._state is _State.HELD
        if held:
            self._state = _State.GONE
        fence, self._fence = self._fence, None
        self._changes.close()
        return held, fence

    async def ended(self) -> None:
        """The app has returned: all that could commit has."""
        held, fence = self._ended()
        self._tell_of_ignored_tags()
        if self._goes_on:
            self._purged.clear()
        due = self._due(self._extent())
        self._await_handler(due)
        # Before waiting for a client that may be slow to take what was released early.
        await self._written(due, fence)
        if held:
            await self._release(late=False)
        elif self._releasing is not None:
            await asyncio.shield(self._releasing)

    def _await_handler(self, purges: list[Purge]) -> None:
        """Where a handler goes on in a thread, although its request has ended: fence, and purge once more after it."""
        if not self._arrival.running:
            return
        fence, loop = self._fenced(purges), self.runtime.loop

        def purge() -> None:
            self._purged.clear()
            self.runtime.own(self._write(self._due(self._extent()), fence))

        def ended() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed, and with it this replica
                loop.call_soon_threadsafe(purge)

        self._arrival.when_ended(ended)

    async def failed(self, error: BaseException) -> bool:
        """The app has raised or was cancelled: the outcome is unknown, so purge; a held answer is dropped."""
        _, fence = self._ended()
        self._held.clear()
        # What went out before may have been committed since.
        self._purged.clear()
        self._status = None
        self._declare_all()
        purges = self._due(self._extent())
        self._await_handler(purges)
        # Fenced as well, because a cancelled request cannot wait for the purge.
        purging = self.runtime.own(self._write(purges, fence, self._fenced(purges)))
        if not isinstance(error, Exception):
            if self._releasing is not None:
                self._releasing.cancel()
            return False
        await asyncio.shield(purging)
        if self._releasing is not None:
            # Whoever answers the error must find that something has been sent.
            await asyncio.gather(self._releasing, return_exceptions=True)
        return False
