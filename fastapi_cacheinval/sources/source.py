"""A source of events: each is read, purged, told of, and only then forgotten."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from enum import Enum
from typing import TypeVar

from fastapi_cacheinval.cache import HTTPCache
from fastapi_cacheinval.core.events import Receipt
from fastapi_cacheinval.engine.clocks import DoublingPause
from fastapi_cacheinval.errors import ConfigurationError
from fastapi_cacheinval.sources.attached import FIRST_PAUSE, LONGEST_PAUSE, Attached
from fastapi_cacheinval.sources.changes import Change, UnreadableEvent, in_few, read_by
from fastapi_cacheinval.sources.handlers import KEEP, Decision, OnUnreadable, Then, answer_to, on_unreadable_of

__all__ = ["Outcome", "Source"]

E = TypeVar("E")


class Outcome(Enum):
    """What has become of an event: `DONE`, `DROPPED`, `KEPT` because it cannot be read, `FAILED` and to be tried again.

    The first two are over, and the system may forget the event; the others come again.
    """

    DONE = "done"
    DROPPED = "dropped"
    KEPT = "kept"
    FAILED = "failed"

    @property
    def over(self) -> bool:
        """Whether the event may be forgotten."""
        return self in (Outcome.DONE, Outcome.DROPPED)


class Source(Attached):
    """What takes events from a system and purges what they name; a subclass gives `serve`.

    `handle` sees one event through and never raises: acknowledge the event if its outcome is `over`, and have it come
    again if not. What comes in batches calls `purge` and `unreadable`, of which `handle` is made. `then` and
    `on_unreadable` are the user's. Raises `ConfigurationError` as `Attached` does, and for what cannot be called.
    """

    brings_purges = True
    """What is purged comes from elsewhere, so that no route may say so: for `HTTPCache.audit`."""

    def __init__(
        self, cache: HTTPCache, name: str, *, then: Then | None = None, on_unreadable: OnUnreadable | None = None
    ) -> None:
        super().__init__(cache, name)
        if then is not None and not callable(then):  # pyright: ignore[reportUnnecessaryComparison]
            raise ConfigurationError(f"then is a function of a receipt, not {then!r}.")
        self._then = then
        self._on_unreadable: OnUnreadable | None = on_unreadable_of(on_unreadable, None)

    async def handle(
        self, event: E, read: Callable[[E], object], *, otherwise: Decision = KEEP
    ) -> tuple[Outcome, Exception | None]:
        """See one event through: read it, purge, await `then`. Returns what becomes of it, and why if it is not done.

        `read` is a plain function that returns what `Change.of` takes. What it raises is for `on_unreadable`, and for
        `otherwise` where that was not given; an `OSError` is not, then the event is tried again. Raises no `Exception`.
        """
        why: Exception | None = None
        try:
            try:
                answer: Decision = read_by(read, event)
            except UnreadableEvent as error:
                await self.purge(error.readable)
                why, answer = error, await self.unreadable(event, error, otherwise)
            if isinstance(answer, Change):
                await self.purge(answer)
        except Exception as failure:  # noqa: BLE001  # the user's functions', and the cache's
            return Outcome.FAILED, failure
        if answer is KEEP:
            return Outcome.KEPT, why
        return (Outcome.DONE if why is None else Outcome.DROPPED), why

    async def purge(self, change: Change) -> None:
        """Return once the purge has its number, however long that takes, and `then` has returned.

        Raises what `then` does, and `CacheNotRunning`. A change that names nothing does nothing; one with very many
        tags is several purges.
        """
        for _, part in in_few([(None, change)]):
            await self.tell(await self.deliver(part))

    async def deliver(self, change: Change) -> Receipt | None:
        """The first half of `purge`: the receipt of a change, None for one that names nothing."""
        if not change:
            return None
        return await self.cache.deliver(
            *change.tags, soft=change.soft, everything=change.everything, causes=change.causes
        )

    async def tell(self, receipt: Receipt | None) -> None:
        """The second half of `purge`: await `then`; raises what that does."""
        if receipt is not None and self._then is not None:
            await self._then(receipt)

    async def repeat(self, attempt: Callable[[], Awaitable[None]], useful: Callable[[], bool]) -> bool:
        """Make an attempt until it raises nothing, with a pause after each failure; False once it is not `useful`."""
        pause = DoublingPause(FIRST_PAUSE, LONGEST_PAUSE)
        while True:
            try:
                await attempt()
            except Exception as error:  # noqa: BLE001  # whatever the user's function raises
                self.troubled(error)
            else:
                return True
            if not useful():
                return False
            await self.rest(pause.take())

    async def unreadable(self, event: object, error: Exception, otherwise: Decision) -> Decision:
        """What is to become of an event that cannot be read, `otherwise` where nobody says; a `Change` is for `purge`.

        Raises what `on_unreadable` does, and `TypeError` for an answer that is none: then the event is to be kept, and
        tried again.
        """
        return await answer_to(self._on_unreadable, event, error, otherwise)
