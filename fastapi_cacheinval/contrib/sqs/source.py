"""`SQSSource`: polls a queue, purges what its messages name, and deletes them then."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from typing import Any

from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.contrib.sqs.addresses import address_of
from fastapi_cacheinval.contrib.sqs.batches import Batch, Held, Verdict, backoff, extension
from fastapi_cacheinval.contrib.sqs.messages import Message
from fastapi_cacheinval.contrib.sqs.options import checked
from fastapi_cacheinval.contrib.sqs.queues import (
    Facts,
    Queue,
    QueueUnavailable,
    Session,
    connected,
    new_session,
    own_session,
    preload,
)
from fastapi_cacheinval.contrib.sqs.reading import TagsOf, read
from fastapi_cacheinval.sources import DROP, KEEP, Change, OnUnreadable, Outcome, Source, Then
from fastapi_cacheinval.sources.attached import FIRST_PAUSE
from fastapi_cacheinval.sources.handlers import Decision, on_unreadable_of
from fastapi_cacheinval.sources.waiting import done_within, ended, last_word

__all__ = ["SQSSource"]

logger = logging.getLogger("fastapi_cacheinval.contrib.sqs")

_ASK_EVERY = 30.0
# Between two polls that do not wait.
_IDLE = 1.0
# Real seconds for what is deleted and given back at the end.
_LAST_WORD = 2.0
_TRIES_TO_DELETE = 4


class SQSSource(Source):
    """Purges what the messages of an SQS queue name: `cache.attach(SQSSource(cache, url))`, or alone `source.run()`.

    `tags` names the tags of a `Message`; without it the body is JSON: `{"tags": ["product:42"], "soft": false,
    "everything": false}`. `soft` is for messages that do not say. A message is deleted once its purge has its number
    and `then(receipt)` has returned; until then it stays hidden, up to the 12 hours that SQS allows.

    `on_unreadable` is for messages that no change can be read from: `DROP` deletes them, `KEEP` leaves them (they come
    back, and end in the queue's dead-letter queue), or a function of the `Message` and its error that answers one of
    these, or a `Change` to purge in its place before it is deleted. By default a message is deleted only if the queue
    has no redrive policy and `tags` has not failed. `on_poison` is its old name.

    `visibility_timeout` and `wait_seconds` (0 to 20) are seconds, `batch` (1 to 10) messages to a poll, `concurrency`
    polls side by side. `session` is one of aiobotocore, `client_options` go to its `create_client`. Raises
    `ConfigurationError` for what cannot work.
    """

    def __init__(
        self,
        cache: HTTPCache,
        queue_url: str,
        *,
        tags: TagsOf | None = None,
        soft: bool = False,
        then: Then | None = None,
        on_unreadable: OnUnreadable | None = None,
        on_poison: Any = None,
        region: str | None = None,
        endpoint_url: str | None = None,
        session: Any = None,
        client_options: Mapping[str, Any] | None = None,
        wait_seconds: int = 20,
        visibility_timeout: int = 60,
        batch: int = 10,
        concurrency: int = 1,
        name: str = "sqs",
    ) -> None:
        super().__init__(cache, name, then=then, on_unreadable=on_unreadable_of(on_unreadable, on_poison))
        self._address = address_of(queue_url, region, endpoint_url)
        self._options = checked(
            client_options=client_options,
            tags=tags,
            wait_seconds=wait_seconds,
            visibility_timeout=visibility_timeout,
            batch=batch,
            concurrency=concurrency,
        )
        self._tags = tags
        self._soft = soft
        self._given_session: Session | None = own_session(session)
        self._session: tuple[asyncio.AbstractEventLoop, Session] | None = None
        self._facts = Facts()

    # -- polling --------------------------------------------------------------------------------

    async def serve(self) -> None:
        """Poll the queue, with as many polls side by side as asked for."""
        options = self._options
        async with connected(
            await self._session_here(),
            self._address,
            options.client_options,
            wait_seconds=options.wait_seconds,
            visibility_timeout=options.visibility_timeout,
            batch=options.batch,
            polls=options.concurrency,
        ) as queue:
            await self._ask(queue)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._ask_on(queue))
                for _ in range(options.concurrency):
                    group.create_task(self._poll(queue))

    async def _session_here(self) -> Session:
        """The session of the user, else one for this loop, for as long as that runs."""
        if self._given_session is not None:
            return self._given_session
        loop = asyncio.get_running_loop()
        if self._session is None or self._session[0] is not loop:
            session = new_session()
            await asyncio.to_thread(preload, session)
            self._session = loop, session
        return self._session[1]

    async def _ask(self, queue: Queue) -> None:
        self._facts = await queue.facts()
        self.note(lag=self._facts.waiting)

    async def _ask_on(self, queue: Queue) -> None:
        while True:
            await self.rest(_ASK_EVERY)
            # Where it cannot be asked the polls find that out, and say so.
            with contextlib.suppress(QueueUnavailable):
                await self._ask(queue)

    async def _poll(self, queue: Queue) -> None:
        # The first does not wait, so that it is known soon whether the queue answers.
        wait_seconds, failures = 0, self._state.failures
        while True:
            received = await queue.receive(wait_seconds)
            self.note(connected=True)
            if received:
                await self._work(queue, Batch(received, ordered=self._address.ordered))
            elif not self._options.wait_seconds:
                await self.rest(_IDLE)
            if self._state.failures == failures:
                self.well()
            wait_seconds, failures = self._options.wait_seconds, self._state.failures

    # -- one batch ------------------------------------------------------------------------------

    async def _work(self, queue: Queue, batch: Batch) -> None:
        self.count(received=len(batch.held))
        self.note(waiting=self._state.waiting + len(batch.held))
        handling = asyncio.get_running_loop().create_task(self._handle(batch))
        try:
            await self._hold(queue, batch, handling)
            await self._settle(queue, batch)
        except BaseException:
            await last_word(self._part(queue, batch, handling))
            raise
        finally:
            self.note(waiting=self._state.waiting - len(batch.held))

    async def _hold(self, queue: Queue, batch: Batch, handling: asyncio.Task[None]) -> None:
        """Keep the batch hidden until it is handled; past what SQS allows it is let go of, and handed out again."""
        began, timeout = self.cache.clock.now(), self._options.visibility_timeout
        while not await done_within(handling, timeout / 3, self.cache):
            seconds = extension(self.cache.clock.now() - began, timeout)
            if seconds < timeout / 3:
                await ended(handling)
                logger.error("%s held messages for as long as SQS allows, and lets them be handed out again", self.name)
                return
            try:
                # One that was handed out to somebody else meanwhile is purged twice.
                await queue.hide(dict.fromkeys((held.receipt for held in batch.held), seconds))
            except QueueUnavailable as error:
                self.troubled(error)
        handling.result()

    async def _settle(self, queue: Queue, batch: Batch) -> None:
        """Delete what is done, and give back the rest."""
        to_hide = batch.to_hide()
        if to_hide:
            await queue.hide(to_hide)
        left = await self._delete(queue, [held.receipt for held in batch.to_delete()])
        for held in batch.held:
            if held.verdict is not None and held.verdict.outcome is Outcome.DONE and held.receipt not in left:
                self.count(done=1)

    async def _delete(self, queue: Queue, receipts: list[str]) -> set[str]:
        """Delete, more than once where SQS says that this may help; those that come back, which is harmless."""
        left, lost = receipts, set[str]()
        for number in range(_TRIES_TO_DELETE):
            if not left:
                break
            if number:
                await self.rest(FIRST_PAUSE * 2**number)
            failed = await queue.delete(left)
            lost |= {receipt for receipt, again in failed.items() if not again}
            left = [receipt for receipt, again in failed.items() if again]
        if lost or left:
            logger.warning(
                "%s could not delete %d message(s), which are purged again", self.name, len(lost) + len(left)
            )
        return lost | set(left)

    async def _part(self, queue: Queue, batch: Batch, handling: asyncio.Task[None]) -> None:
        """What is in hand when it ends: what was purged is deleted, the rest is at once there for others."""
        await ended(handling)
        with contextlib.suppress(QueueUnavailable, TimeoutError):
            async with asyncio.timeout(_LAST_WORD):
                await self._settle(queue, batch)

    async def _handle(self, batch: Batch) -> None:
        async with asyncio.TaskGroup() as group:
            for line in batch.lines():
                group.create_task(self._handle_in_order(line))

    async def _handle_in_order(self, line: list[Held]) -> None:
        for number, held in enumerate(line):
            held.verdict = await self._verdict(held.message)
            if held.verdict.outcome is Outcome.FAILED:
                # What comes after it in its group stays after it.
                for later in line[number + 1 :]:
                    later.verdict = held.verdict
                return

    async def _verdict(self, message: Message) -> Verdict:
        outcome, why = await self.handle(message, self._read)
        if outcome is Outcome.FAILED and why is not None:
            self.troubled(why)
        elif outcome is not Outcome.DONE:
            fate = "deletes" if outcome.over else "leaves"
            self.refuse(f"{self.name} cannot read message {message.id} and {fate} it: {why}")
        return Verdict(outcome, backoff(message.receive_count), why)

    def _read(self, message: Message) -> Change:
        return read(message, self._tags, soft=self._soft)

    async def unreadable(self, event: object, error: Exception, otherwise: Decision) -> Decision:
        """By default nothing is thrown away that somebody may keep, or that was not read for a mistake in `tags`."""
        lost = self._facts.redrives is False and error.__cause__ is None
        return await super().unreadable(event, error, DROP if lost else KEEP)
