"""The messages of a response: which may come next, how far it is, and copies that the app cannot change any more."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

from starlette.types import Message, Send

from fastapi_cacheinval.core.storing import content_length
from fastapi_cacheinval.grammar.fields import lower_names, own_lines

__all__ = ["SENT_PAST", "MessageOrder", "Passage", "own_copy", "past_the_length", "were_cut"]

# Messages, and the extensions of the same names, by which a server sends a file whose bytes never pass `send`.
SENT_PAST = frozenset({"http.response.pathsend", "http.response.zerocopysend"})


class _Next(Enum):
    START = "nothing has begun"
    BODY = "the body goes on"
    TRAILERS = "the trailers that the start has announced"
    NOTHING = "the response has ended"


class MessageOrder:
    """How far an app is with its response, by the messages that it has sent (ASGI's HTTP specification)."""

    __slots__ = ("_next", "_trailers", "body_ended")

    def __init__(self) -> None:
        self._next = _Next.START
        self._trailers = False
        # Whether the app has sent the last of its body.
        self.body_ended = False

    def take(self, message: Message) -> bool:
        """Whether a message comes in its place. One that does not is no part of the response, and changes nothing."""
        kind, following = message["type"], self._next
        if kind == "http.response.body" or kind in SENT_PAST:
            if following is _Next.BODY and not message.get("more_body", False):
                self._next, self.body_ended = _Next.TRAILERS if self._trailers else _Next.NOTHING, True
            return following is _Next.BODY
        if kind == "http.response.start":
            if following is _Next.START:
                self._next, self._trailers = _Next.BODY, bool(message.get("trailers", False))
            return following is _Next.START
        if kind == "http.response.trailers":
            if following is _Next.TRAILERS and not message.get("more_trailers", False):
                self._next = _Next.NOTHING
            return following is _Next.TRAILERS
        # An extension, such as a push or an early hint.
        return following is not _Next.NOTHING

    @property
    def begun(self) -> bool:
        """Whether the app has begun a response."""
        return self._next is not _Next.START


class Passage(MessageOrder):
    """How far a route is with one response, whatever a layer on the way out makes of that."""

    __slots__ = ("length", "returned", "sent")

    def __init__(self) -> None:
        super().__init__()
        # The length that the route declares, and the bytes that it has sent.
        self.length: int | None = None
        self.sent = 0
        # Whether the route has returned or raised.
        self.returned = False

    @classmethod
    def unheard(cls) -> Passage:
        """One that begins and of which nothing more is heard."""
        passage = cls()
        passage.take({"type": "http.response.start"})
        return passage

    def take(self, message: Message) -> bool:
        """Note one message, as it is before any layer has it; whether it comes in its place."""
        in_place = super().take(message)
        if in_place and message["type"] == "http.response.start":
            self.length = content_length(lower_names(message.get("headers", ())))
        elif in_place:
            self.sent += len(message.get("body", b""))
        return in_place

    @property
    def open(self) -> bool:
        """Whether the route has begun a response, and has neither ended it nor sent all that it has declared."""
        return self.begun and not self.body_ended and self.sent != self.length


def were_cut(passages: Iterable[Passage], length: int | None) -> bool:
    """Whether what has just come to its end outside, with this declared length, may be a part of what a route says.

    A layer that ends a body while the route still runs says something of its own where it declares a length.
    """
    return any(passage.open and (passage.returned or length is None) for passage in passages)


def own_copy(message: Message) -> Message:
    """The message as it is now: an app may fill its buffer, its list or its dict anew once `send` has returned.

    Raises TypeError for a body that is no bytes.
    """
    copied = {**message}
    if "body" in copied and type(copied["body"]) is not bytes:
        copied["body"] = bytes(memoryview(copied["body"]))
    if "headers" in copied:
        copied["headers"] = own_lines(copied["headers"])
    return copied


def past_the_length(send: Send) -> Send:
    """For an app that has sent all that it has declared: it may still end the body; the server refuses what is more."""

    async def more(message: Message) -> None:
        if message["type"] != "http.response.body" or message.get("body"):
            await send(message)

    return more
