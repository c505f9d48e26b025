"""What the app hears of its request: the content once, and a disconnect only when it may cut the response short."""

from __future__ import annotations

import asyncio
from collections import deque
from enum import Enum

from starlette.types import Message, Receive

__all__ = ["Receiving", "nobody"]


class _Content(Enum):
    UNHEARD = "the app has heard nothing of the request"
    PARTLY = "the app has heard the beginning of the content"
    HEARD = "the app has heard the whole request"


class Receiving:
    """A `receive` for one request. Any number of tasks may call it at the same time.

    It passes the client's messages on until a fill begins. From then on the app hears an empty request, unless it has
    heard one, and no disconnect: a disconnect would cut the response short that others are to be given. `release`
    lets the app hear the client again. The app never hears a second request, in either state.

    A background refresh has no client: the app hears an empty request, and a disconnect after `release`.
    """

    __slots__ = ("_ahead", "_client", "_content", "_known", "_left", "_released")

    def __init__(self, client: Receive | None) -> None:
        self._client = client
        self._content = _Content.UNHEARD
        # Messages of the client that were read before the app asked for them.
        self._ahead: deque[Message] = deque()
        # Whether enough of them were read to know if there is content.
        self._known = False
        # The client's disconnect, once it is known.
        self._left: Message | None = None
        # Set while nothing is withheld; None before a fill begins.
        self._released: asyncio.Event | None = None if client is not None else asyncio.Event()

    def hold(self) -> None:
        """A fill begins: withhold the content that the app has not heard, and the disconnect."""
        if self._released is None:
            self._released = asyncio.Event()

    def release(self) -> None:
        """Nothing of the response is kept, or all of it has come: let the app hear the client."""
        if self._released is not None:
            self._released.set()

    @property
    def _held(self) -> bool:
        return self._released is not None and not self._released.is_set()

    async def has_content(self) -> bool:
        """Whether the request has content, announced or not (HTTP/2 needs no field for it).

        It waits for the client's first bytes, or for the end of the request. The app hears all of it later.
        """
        while self._client is not None and not self._known:
            message = await self._client()
            self._ahead.append(message)
            more = message["type"] == "http.request" and message.get("more_body", False)
            self._known = bool(message.get("body")) or not more
        return any(message.get("body") for message in self._ahead)

    async def __call__(self) -> Message:
        """The next message for the app."""
        while True:
            if self._content is _Content.HEARD and self._released is not None:
                await self._released.wait()
            if self._content is _Content.UNHEARD and self._held:
                self._content = _Content.HEARD
                return {"type": "http.request", "body": b"", "more_body": False}
            message = await self._next()
            if message["type"] != "http.request":
                self._left = message
                if self._held and self._content is not _Content.PARTLY:
                    continue
                return message
            if self._content is not _Content.HEARD:
                more = message.get("more_body", False)
                self._content = _Content.PARTLY if more else _Content.HEARD
                return message

    async def _next(self) -> Message:
        if self._ahead:
            return self._ahead.popleft()
        if self._left is not None:
            return self._left
        return {"type": "http.disconnect"} if self._client is None else await self._client()


async def nobody() -> Message:
    """What a request hears that no client has sent."""
    return {"type": "http.disconnect"}
