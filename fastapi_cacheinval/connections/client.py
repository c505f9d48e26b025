"""A Redis client on one event loop: bounded calls, and one error for whatever goes wrong."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from ssl import SSLError
from typing import Any

from opentelemetry import context as contexts
from redis.exceptions import NoScriptError

__all__ = ["Away", "Client", "Script", "Subscriber"]

# What instrumentations ask for, in the context of what is running.
_UNTRACED = "suppress_instrumentation"

Subscriber = Callable[[], Awaitable[Any]]
"""Gives a client that can subscribe."""


class Away(Exception):
    """Redis could not be reached, or refused; `reason` is for people."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class Script:
    """A Lua script, sent by its digest where the server knows it."""

    __slots__ = ("digest", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        # The name that the protocol gives a script, nothing that has to be secure.
        self.digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


def reason_of(error: BaseException) -> str:
    """What to say of an error: the server's own word, or what kind of silence it is."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, SSLError):
        cause = cause.__cause__ or cause.__context__
    # What is wrong with a certificate is not always repeated in the client's own error.
    text = str(cause or error).strip().partition("\n")[0]
    return text[:200] or type(error).__name__


@asynccontextmanager
async def _bounded(seconds: float) -> AsyncGenerator[None]:
    """A block of at most so many seconds, of which an instrumentation of the client makes no spans.

    Heartbeats and polling would be most of what it has to tell, and a lookup has spans of its own.
    """
    token = contexts.attach(contexts.set_value(_UNTRACED, True))  # noqa: FBT003 - what the key means
    try:
        async with asyncio.timeout(seconds):
            yield
    finally:
        contexts.detach(token)


class Client:
    """Calls a `redis.asyncio` client, each for at most `timeout` seconds; raises `Away`, and nothing else.

    Where it is `owned` closing closes it, and what is there beside it. What is raised for a server that is gone, sick
    or somebody else has many roots (`RedisError`, `RedisClusterException`, `OSError`, whatever a parser trips over),
    so every `Exception` counts as that.
    """

    def __init__(
        self,
        client: Any,
        timeout: float,
        *,
        owned: bool,
        subscriber: Subscriber,
        also: Iterable[Any] = (),
    ) -> None:
        self._also = tuple(also)
        self.client = client
        self._timeout = timeout
        self._owned = owned
        self._subscriber = subscriber
        self._closed = False

    def __repr__(self) -> str:
        return f"<Client of {self.client!r}>"

    @property
    def _opened(self) -> Any:
        if self._closed:
            # It would connect again, and nobody would close that.
            raise Away("it has been closed")
        return self.client

    @asynccontextmanager
    async def _call(self) -> AsyncGenerator[None]:
        """One call; if the client was closed meanwhile, what the call has connected again is closed after it."""
        try:
            async with _bounded(self._timeout):
                yield
        finally:
            if self._closed and self._owned:
                await _quietly(self.client.aclose)

    async def command(self, *parts: Any) -> Any:
        """One command."""
        try:
            async with self._call():
                return await self._opened.execute_command(*parts)
        except Exception as error:
            raise Away(reason_of(error)) from error

    async def script(self, script: Script, keys: Sequence[bytes], arguments: Sequence[Any]) -> Any:
        """One call of a script; the keys are all in one slot."""
        parts = (len(keys), *keys, *arguments)
        try:
            async with self._call():
                try:
                    return await self._opened.execute_command("EVALSHA", script.digest, *parts)
                except NoScriptError:
                    return await self._opened.execute_command("EVAL", script.text, *parts)
        except Exception as error:
            raise Away(reason_of(error)) from error

    async def together(self, *commands: tuple[Any, ...]) -> list[Any]:
        """Several commands on keys of one slot, in one round trip and not as a transaction."""
        try:
            async with self._call():
                pipeline = self._opened.pipeline(transaction=False)
                for parts in commands:
                    pipeline.execute_command(*parts)
                replies: list[Any] = await pipeline.execute()
                return replies
        except Exception as error:
            raise Away(reason_of(error)) from error

    async def messages(self, *channels: bytes, quiet: float) -> AsyncIterator[tuple[bytes, bytes] | None]:
        """What is published on channels, and None once they are subscribed to; raises `Away` when that ends.

        After `quiet` seconds without a word the server is asked for one, and given up after as many again.
        """
        pubsub = client = None
        try:
            async with _bounded(self._timeout):
                client = await self._subscriber()
                pubsub = client.pubsub()
                await pubsub.subscribe(*channels)
            # The confirmation has to come as any answer has; after that there may be nothing to hear for long.
            patience, asked = self._timeout, True
            while True:
                message = await _next_message(pubsub, patience)
                patience = quiet
                if message is None:
                    await self._prompt(pubsub, asked=asked)
                    asked = True
                    continue
                asked = False
                if message["type"] == "message":
                    yield message["channel"], message["data"]
                elif message["type"] == "subscribe" and message["channel"] == channels[-1]:
                    yield None
        except Away:
            raise
        except Exception as error:
            raise Away(reason_of(error)) from error
        finally:
            if pubsub is not None:
                await _quietly(pubsub.aclose)
            if client is not None and client is not self.client:
                await _quietly(client.aclose)

    async def _prompt(self, pubsub: Any, *, asked: bool) -> None:
        """Nothing has come for long: have the server say something, or give it up where that has been asked."""
        if asked:
            raise Away("the subscription is silent")
        async with _bounded(self._timeout):
            await pubsub.ping()

    async def close(self) -> None:
        """Take no more calls, and close what is ours; never raises."""
        self._closed = True
        if self._owned:
            for client in (self.client, *self._also):
                await _quietly(client.aclose)


async def _next_message(pubsub: Any, quiet: float) -> Any:
    """The next message, None after so many seconds without one.

    `pong` counts as a message: the server is there.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        # Before Python 3.12 `asyncio.wait_for`, which the client uses, may swallow a cancellation.
        raise asyncio.CancelledError
    async with _bounded(quiet * 2):
        return await pubsub.get_message(ignore_subscribe_messages=False, timeout=quiet)


async def _quietly(close: Callable[[], Any]) -> None:
    try:
        async with _bounded(1.0):
            await close()
    except Exception:  # noqa: BLE001 - see above
        # It is gone already, which is what was wanted.
        return
