"""The messages of a response: which may come next, and copies that the app cannot change any more."""

from __future__ import annotations

from enum import Enum

from starlette.types import Message, Send

from fastapi_cacheinval.grammar.fields import own_lines

__all__ = ["SENT_PAST", "MessageOrder", "own_copy", "past_the_length"]

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
