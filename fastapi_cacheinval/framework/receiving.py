"""What the app hears of its request: the content once, and a disconnect only when it may cut the response short."""

from __future__ import annotations

import asyncio
from collections import deque
from enum import Enum
from typing import Protocol

from starlette.types import Message, Receive, Scope

from fastapi_cacheinval.engine.clocks import within
from fastapi_cacheinval.grammar.fields import announces_content, first, head_tells_of_content
from fastapi_cacheinval.ports.clock import Clock

__all__ = ["Keeper", "Receiving", "nobody"]


class _Content(Enum):
    UNHEARD = "the app has heard nothing of the request"
    PARTLY = "the app has heard the beginning of the content"
    HEARD = "the app has heard the whole request"


class Keeper(Protocol):
    """Who keeps the response, and has the client's disconnect withheld from the app for that."""

    @property
    def clock(self) -> Clock:
        """What the seconds below are measured by."""
        ...

    def client_left(self) -> float:
        """The client has left, and the app listens for that: how many seconds later this is asked again.

        0 where the keeper has let go of the response, so that the app may hear it.
        """
        ...


class Receiving:
    """A `receive` for one request. Any number of tasks may call it at the same time.

    It passes the client's messages on until a fill begins. From then on the app hears an empty request, unless it has
    heard one, and no disconnect: a disconnect would cut the response short that others are to be given. If the app
    listens for one, the keeper of the fill is asked whether the response is still of use. `release` lets the app hear
    the client again. The app never hears a second request, in either state.

    A background refresh has no client: the app hears an empty request, and a disconnect after `release`.
    """

    __slots__ = ("_ahead", "_client", "_content", "_found", "_keeper", "_known", "_left", "_listening", "_released")

    def __init__(self, client: Receive | None) -> None:
        self._client = client
        self._content = _Content.UNHEARD
        # Messages of the client that were read before the app asked for them.
        self._ahead: deque[Message] = deque()
        # Whether enough was read to know if there is content, and whether there is some.
        self._known = client is None
        self._found = False
        # The client's disconnect, once it is known.
        self._left: Message | None = None
        # Done while nothing is withheld; None before a fill begins.
        self._released: asyncio.Future[None] | None = None if client is not None else _future()
        self._keeper: Keeper | None = None
        # What listens for a disconnect that is withheld: one task, for all tasks of the app that wait for it.
        self._listening: asyncio.Task[None] | None = None

    def hold(self, keeper: Keeper) -> None:
        """A fill begins: withhold the content that the app has not heard, and the disconnect."""
        self._keeper = keeper
        if self._released is None:
            self._released = _future()

    def release(self) -> None:
        """Nothing of the response is kept, or all of it has come: let the app hear the client."""
        if self._released is not None and not self._released.done():
            self._released.set_result(None)

    def end(self) -> None:
        """The app has returned: listen no longer."""
        if self._listening is not None and not self._listening.cancel() and not self._listening.cancelled():
            # Looked at, so that nothing complains that nobody has.
            self._listening.exception()

    @property
    def _held(self) -> bool:
        return self._released is not None and not self._released.done()

    async def has_content(self, scope: Scope, *, unannounced: bool = True) -> bool:
        """Whether the request has content. Its head tells of it; after HTTP/1 it need not, and only its bytes do."""
        if announces_content(scope["headers"]):
            return True
        return unannounced and not head_tells_of_content(scope.get("http_version")) and await self.has_bytes(scope)

    async def has_bytes(self, scope: Scope) -> bool:
        """Whether the request has content, whatever its head tells.

        It waits for the client's first bytes, or for the end of the request. The app hears all of it later.
        """
        if _has_server_ask(scope):
            return False
        while self._client is not None and not self._known:
            message = await self._client()
            self._ahead.append(message)
            self._look_at(message)
        return self._found

    async def client_left(self, scope: Scope) -> bool:
        """Whether the client is known to have left: nothing is waited for. The app hears later what this has read."""
        while not _has_server_ask(scope) and self._client is not None and self._left is None and not self._found:
            ended = self._known
            try:
                async with asyncio.timeout(0):
                    message = await self._client()
            except TimeoutError:
                return False
            self._ahead.append(message)
            self._look_at(message)
            if message["type"] != "http.request":
                self._left = message
            elif ended:
                return False
        return self._left is not None

    def _look_at(self, message: Message) -> None:
        more = message["type"] == "http.request" and message.get("more_body", False)
        self._found = self._found or bool(message.get("body"))
        self._known = self._known or self._found or not more

    async def __call__(self) -> Message:
        """The next message for the app."""
        while True:
            if self._content is _Content.HEARD and self._released is not None:
                await self._may_hear(self._released)
            if self._content is _Content.UNHEARD and self._held:
                self._content = _Content.HEARD
                return {"type": "http.request", "body": b"", "more_body": False}
            message = await self._next()
            self._look_at(message)
            if message["type"] != "http.request":
                self._left = message
                if self._held and self._content is not _Content.PARTLY and not self._let_go():
                    continue
                return message
            if self._content is not _Content.HEARD:
                more = message.get("more_body", False)
                self._content = _Content.PARTLY if more else _Content.HEARD
                return message

    async def _next(self) -> Message:
        if self._ahead:
            return self._ahead.popleft()
        if self._listening is not None and not self._listening.done():
            # Some servers say it once, to whoever asks first.
            await asyncio.wait((self._listening,))
        if self._left is not None:
            return self._left
        return {"type": "http.disconnect"} if self._client is None else await self._client()

    async def _may_hear(self, released: asyncio.Future[None]) -> None:
        """Back when the app may hear its client: nothing is kept any more, or the client has left in vain.

        Nothing is awaited where that is known: an app may ask without waiting, as `Request.is_disconnected()` does.
        """
        client, keeper = self._client, self._keeper
        if client is None or keeper is None:
            await asyncio.wait((released,))
            return
        while not released.done():
            if self._left is None:
                if self._listening is None:
                    self._listening = asyncio.get_running_loop().create_task(self._listen(client))
                await asyncio.wait((released, self._listening), return_when=asyncio.FIRST_COMPLETED)
                if self._listening.done() and self._left is None:
                    # The app has returned, or the server's own `receive` raised.
                    return
            else:
                seconds = keeper.client_left()
                if seconds <= 0:
                    return
                await within(keeper.clock, released, seconds)

    def _let_go(self) -> bool:
        return self._keeper is not None and self._keeper.client_left() <= 0

    async def _listen(self, client: Receive) -> None:
        """Hear the client until it leaves; more of its content is nothing that the app hears."""
        message: Message = {"type": "http.request"}
        while message["type"] == "http.request":
            message = self._ahead.popleft() if self._ahead else await client()
        self._left = message


def _has_server_ask(scope: Scope) -> bool:
    """Whether a server that is asked for content says `100 Continue`, here to a request that announces none."""
    return head_tells_of_content(scope.get("http_version")) and first(scope["headers"], b"expect") is not None


def _future() -> asyncio.Future[None]:
    return asyncio.get_running_loop().create_future()


async def nobody() -> Message:
    """What a request hears that no client has sent."""
    return {"type": "http.disconnect"}
