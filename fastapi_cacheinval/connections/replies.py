"""How connections read replies and write commands: no more of one reply than any replica writes, and bytes.

`redis-py` gathers each string of a reply as a whole, and copies it several times. Anybody who can write to the server
could stop the event loop for seconds by a single message. Here a string over the bound is passed over, piece by piece.
Only its first eight bytes are left: they are no line and no value, and still tell one value from another.
"""

from __future__ import annotations

from functools import cache
from string import printable
from typing import Any

from redis.asyncio.cluster import RedisCluster
from redis.exceptions import ConnectionError as ServerGone

__all__ = ["bounded", "decodes", "writes_ascii"]

_PIECE = 65_536
_LEFT = 8


@cache
def bounded(kind: Any, most: int) -> Any:
    """A class of connections like `kind`; of strings of a reply over `most` bytes the first eight are read.

    A parser in C is left alone: it takes a long string as it comes, and copies it once.
    """

    class Bounded(kind):  # type: ignore[misc]
        def set_parser(self, parser_class: Any) -> None:
            kind.set_parser(self, parser_class)
            if hasattr(self._parser, "_read"):
                self._parser._read = _Reading(self._parser, most)  # noqa: SLF001

    # The client looks at names to tell connections with TLS from those without.
    Bounded.__name__, Bounded.__qualname__ = kind.__name__, kind.__qualname__
    return Bounded


class _Reading:
    """Stands in place of a parser's own way to read a string."""

    __slots__ = ("_begun", "_left", "_most", "_parser", "_read", "_stream")

    def __init__(self, parser: Any, most: int) -> None:
        self._parser = parser
        self._read = parser._read  # noqa: SLF001
        self._most = most
        # Of the string that is passed over. A call may be given up halfway; the next one reads the reply anew.
        self._begun, self._left = b"", 0
        self._stream: Any = None

    async def __call__(self, length: int) -> bytes:
        """One string of so many bytes, and the end of its line."""
        parser = self._parser
        if length <= self._most:
            found: bytes = await self._read(length)
            return found
        stream, whole = parser._stream, length + 2  # noqa: SLF001
        if not self._left or stream is not self._stream:
            self._begun = bytes(parser._buffer[parser._pos :])  # noqa: SLF001
            self._stream, self._left = stream, whole - len(self._begun)
        while self._left > 0:
            piece = await stream.read(min(self._left, _PIECE))
            if not piece:
                raise ServerGone("Connection closed by server.")
            self._left -= len(piece)
            self._begun = (self._begun + piece)[:_LEFT]
        begun, self._begun, self._left = self._begun[:_LEFT], b"", 0
        parser._pos += whole  # noqa: SLF001
        return begun


def _settings_of(client: Any) -> Any:
    return client.connection_kwargs if isinstance(client, RedisCluster) else client.connection_pool.connection_kwargs


def decodes(client: Any) -> bool:
    """Whether a client gives text for what is answered."""
    return bool(_settings_of(client).get("decode_responses"))


def writes_ascii(client: Any) -> bool:
    """Whether a server understands the commands that it writes."""
    encoding = _settings_of(client).get("encoding") or "utf-8"
    try:
        return printable.encode(encoding) == printable.encode()
    except (LookupError, UnicodeError, TypeError):
        return False
