"""What is done about one message: read, purged, told; and what becomes of it then."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Literal

from fastapi_cacheinval import HTTPCache, Receipt
from fastapi_cacheinval.contrib.sqs.batches import FORGET, Verdict, backoff
from fastapi_cacheinval.contrib.sqs.messages import Message, PoisonMessage
from fastapi_cacheinval.contrib.sqs.reading import TagsOf, causes_of, read

__all__ = ["Handler", "OnPoison", "Poisoned"]

Poisoned = Literal["delete", "leave"]
OnPoison = Callable[[Message, PoisonMessage], Awaitable[Poisoned | None]]


class Handler:
    """Gives each message its verdict, once its purge has its number, however long that takes."""

    def __init__(
        self,
        cache: HTTPCache,
        tags: TagsOf | None,
        *,
        soft: bool,
        then: Callable[[Receipt], Awaitable[None]] | None,
        on_poison: OnPoison | Poisoned | None,
    ) -> None:
        self._cache = cache
        self._tags = tags
        self._soft = soft
        self._then = then
        self._on_poison = on_poison

    async def verdict(self, message: Message, *, redrives: bool | None) -> Verdict:
        """What becomes of a message of a queue that redrives, does not, or does not say; raises what the cache does."""
        try:
            change = read(message, self._tags, soft=self._soft)
        except PoisonMessage as poison:
            return await self._refused(message, poison, redrives=redrives)
        if not change:
            return FORGET
        receipt = await self._cache.deliver(
            *change.tags, soft=change.soft, everything=change.everything, causes=causes_of(message)
        )
        if self._then is not None:
            try:
                await self._then(receipt)
            except Exception as error:  # noqa: BLE001  # whatever the user's function raises: it is told and tried again
                return _again(message, error)
        return FORGET

    async def _refused(self, message: Message, poison: PoisonMessage, *, redrives: bool | None) -> Verdict:
        answer: object = self._on_poison
        if answer is None:
            # Where it is not known whether somebody keeps it, nothing is thrown away.
            answer = "delete" if redrives is False else "leave"
        elif callable(self._on_poison):
            try:
                answer = await self._on_poison(message, poison) or "delete"
                if answer not in ("delete", "leave"):
                    raise TypeError('on_poison answers "delete", "leave" or None')  # noqa: TRY301  # as what it raises
            except Exception as error:  # noqa: BLE001  # as with `then`
                return _again(message, error)
        return Verdict("refused", delete=answer == "delete", hidden=backoff(message.receive_count), why=poison)


def _again(message: Message, error: Exception) -> Verdict:
    return Verdict("again", delete=False, hidden=backoff(message.receive_count), why=error)
