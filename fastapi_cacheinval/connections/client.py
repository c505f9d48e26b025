"""A Redis client on one event loop: few connections, bounded calls, and one error for whatever goes wrong.

The rule: only the silence or the refusal of a fresh connection is an outage. A connection that was used before may have
been closed while nobody looked, by the server, by something in between, or by a failover; what fails there is tried
once more on a fresh one. Every command passes `_exchange`, where that stands. So a command may reach the server twice.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from opentelemetry import context as contexts
from redis.exceptions import NoScriptError

from fastapi_cacheinval.connections.away import Away, Misplaced, is_final, reason_of
from fastapi_cacheinval.connections.lane import MOST_CONNECTIONS, Lane
from fastapi_cacheinval.connections.topology import Confirm, Topology
from fastapi_cacheinval.errors import LogUnavailable, TierUnavailable

__all__ = ["Away", "Client", "Script", "raising"]

Result = TypeVar("Result")

# What instrumentations ask for, in the context of what is running.
_UNTRACED = "suppress_instrumentation"

# Calls wait for each other for so many times as long as one may take.
_PATIENCE = 4
# The share of a call's time in which replicas acknowledge it; the server may look a tenth of a second late.
_TO_CONFIRM = 0.6


class Script:
    """A Lua script, sent by its digest where the server knows it."""

    __slots__ = ("digest", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        # The name that the protocol gives a script, nothing that has to be secure.
        self.digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()


async def _bounded(seconds: float, work: Awaitable[Result]) -> Result:
    """Wait for `work` for at most so many seconds; instrumentations of the client make no spans of it.

    Heartbeats and polling would be most of what it has to tell, and a lookup has spans of its own.
    """
    loop = asyncio.get_running_loop()
    token = contexts.attach(contexts.set_value(_UNTRACED, True))  # noqa: FBT003 - what the key means
    try:
        async with asyncio.timeout(None) as limit:
            # One round of the loop later: after it has stood still, what has come meanwhile is read first.
            alarm = loop.call_later(seconds, lambda: limit.reschedule(loop.time()))
            try:
                return await work
            finally:
                alarm.cancel()
    finally:
        contexts.detach(token)


class Client:
    """Calls a `redis.asyncio` client; raises `Away`, and nothing else.

    A call takes at most `timeout` seconds on each of at most two connections, once it has its turn: at most `most` are
    under way with one server. For `rest` seconds after an outage no call is made, and then one, until it is answered.

    What is raised for a server that is gone, sick or somebody else has many roots (`RedisError`,
    `RedisClusterException`, `OSError`, whatever a parser trips over), so every `Exception` counts as that.
    """

    def __init__(
        self, client: Any, topology: Topology, timeout: float, *, most: int = MOST_CONNECTIONS, rest: float = 0.0
    ) -> None:
        self.client = client
        self._topology = topology
        self._timeout = timeout
        self._most = most
        self._rest = rest
        self._lanes: dict[str, Lane] = {}
        self._closed = False
        # Scripts that the server has run since the connections were last dropped.
        self._known: set[str] = set()

    def __repr__(self) -> str:
        return f"<Client of {self.client!r}>"

    def _check_open(self) -> None:
        if self._closed:
            # It would connect again, and nobody would close that.
            raise Away("it has been closed")

    def _lane(self, server: str) -> Lane:
        lane = self._lanes.get(server)
        if lane is None:
            patience = _PATIENCE * self._timeout
            lane = self._lanes[server] = Lane(self._most, patience=patience, rest=self._rest)
        return lane

    async def _exchange(self, key: bytes, call: Callable[[], Awaitable[Any]]) -> Any:
        """One call about a key, by the rule of this module."""
        server = self._topology.server_of(key)
        lane = self._lane(server)
        trying = await lane.take()
        try:
            while True:
                # A renewal makes it fresh, so nothing is tried a third time.
                fresh = not lane.used
                try:
                    return await self._tried(lane, call)
                except Exception as error:
                    if is_final(error) or self._closed:
                        raise Away(reason_of(error)) from error
                    await self._renewed(lane, server)
                    if fresh:
                        lane.out(reason_of(error))
                        raise Away(reason_of(error)) from error
        finally:
            lane.give_back(trying=trying)

    async def _tried(self, lane: Lane, call: Callable[[], Awaitable[Any]]) -> Any:
        """One try; if the client was closed meanwhile, what has been connected again is closed after it."""
        self._check_open()
        try:
            if not self._topology.known:
                # A cluster describes itself at length, which is not the call's time.
                await _bounded(self._timeout, self._topology.learn())
            reply = await _bounded(self._timeout, call())
        finally:
            if self._closed:
                await _quietly(self._topology.close)
        lane.answered()
        return reply

    async def _renewed(self, lane: Lane, server: str) -> None:
        with suppress(Exception):  # what is wrong the next try says
            await _bounded(self._timeout, self._topology.renew(server))
        self._known.clear()
        # Not before: until then a call may be given an old connection.
        lane.used = False

    async def command(self, name: str, key: bytes, *parts: Any) -> Any:
        """One command on a key."""
        return await self._exchange(key, lambda: self._topology.send(key, (name, key, *parts)))

    async def about(self, key: bytes, *parts: Any) -> Any:
        """One command that names no key, of the server that has this key."""
        return await self._exchange(key, lambda: self._topology.send(key, parts))

    async def script(
        self,
        script: Script,
        keys: Sequence[bytes],
        arguments: Sequence[Any],
        *,
        confirm_replicas: int = 0,
        answered_by: Callable[[Any], bool] | None = None,
    ) -> Any:
        """One call of a script; the keys are all in one slot.

        It fails unless `confirm_replicas` replicas of the server acknowledge in time what it has written. A connection
        whose reply is not one that the call is `answered_by` is as good as closed.
        """
        parts = (len(keys), *keys, *arguments)

        async def send(*command: Any) -> Any:
            if not confirm_replicas:
                reply = await self._topology.send_script(keys[0], command)
            else:
                confirm = Confirm(confirm_replicas, _TO_CONFIRM * self._timeout)
                reply = await self._topology.send_confirmed(keys[0], command, confirm)
            if answered_by is not None and not answered_by(reply):
                raise Misplaced("the reply is to another call")
            return reply

        async def call() -> Any:
            # A server that does not know the digest waits for replicas all the same. There is no time for two waits.
            if not confirm_replicas or script.digest in self._known:
                with suppress(NoScriptError):
                    return await send("EVALSHA", script.digest, *parts)
            reply = await send("EVAL", script.text, *parts)
            self._known.add(script.digest)
            return reply

        return await self._exchange(keys[0], call)

    async def messages(self, *channels: bytes, quiet: float) -> AsyncIterator[tuple[bytes, bytes] | None]:
        """What is published on channels, and None once they are subscribed to; raises `Away` when that ends.

        After `quiet` seconds without a word the server is asked for one, and given up after as many again.
        """
        pubsub = client = None

        async def subscribe() -> None:
            nonlocal pubsub, client
            client = await self._topology.subscriber()
            pubsub = client.pubsub()
            await pubsub.subscribe(*channels)

        try:
            await _bounded(self._timeout, subscribe())
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
        await _bounded(self._timeout, pubsub.ping())

    async def close(self) -> None:
        """Take no more calls, and close what is ours; never raises."""
        self._closed = True
        await _quietly(self._topology.close)


async def _next_message(pubsub: Any, quiet: float) -> Any:
    """The next message, None after so many seconds without one.

    `pong` counts as a message: the server is there.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        # Before Python 3.12 `asyncio.wait_for`, which the client uses, may swallow a cancellation.
        raise asyncio.CancelledError
    return await _bounded(quiet * 2, pubsub.get_message(ignore_subscribe_messages=False, timeout=quiet))


async def _quietly(close: Callable[[], Any]) -> None:
    try:
        await _bounded(1.0, close())
    except Exception:  # noqa: BLE001 - as in `Client`
        # It is gone already, which is what was wanted.
        return


@contextmanager
def raising(kind: type[LogUnavailable | TierUnavailable]) -> Generator[None]:
    """A block that asks the server and reads its answers; all that goes wrong in it is raised as `kind`.

    The server may be away, or refuse. It may also hold something else under the keys, so that its answers cannot be
    read.
    """
    try:
        yield
    except Away as away:
        raise kind(away.reason) from away
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
        raise kind(f"its answer cannot be read ({error})") from error
