"""The fields that `CORSMiddleware`, outside of the cache, writes into an answer to a request without an `Origin`.

They depend on the release of Starlette, so the layer itself is asked, once.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Any

from starlette.types import Message, Receive, Scope, Send

__all__ = ["run_through", "varied_by", "with_vary"]


def run_through(layer: Any, app: Any, scope: Scope, send: Any = None) -> None:
    """Have a layer of the server's or of Starlette's take a request to another app, neither of which waits."""
    layer = copy(layer)
    layer.app = app
    call = layer(scope, None, send)
    try:
        call.send(None)
    except StopIteration:
        pass
    finally:
        call.close()


def varied_by(layers: Sequence[Any]) -> bytes | None:
    """The names that layers, outermost first, add to the `Vary` of such an answer; None where they change more."""
    added = b""
    for layer in reversed(layers):
        alone = _written(layer, [(b"x-other", b"1")])
        name, value = alone.pop() if len(alone) > 1 else (b"vary", b"")
        beside = [(b"vary", b", ".join(filter(None, (b"a", value)))), (b"x-other", b"1")]
        if name != b"vary" or alone != beside[1:] or _written(layer, [(b"vary", b"a"), (b"x-other", b"1")]) != beside:
            return None
        added = b", ".join(filter(None, (added, value)))
    return added


def _written(layer: Any, fields: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The fields of an answer after the layer has passed it on."""
    heard: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [*fields]})

    async def send(message: Message) -> None:
        heard.append(message)

    run_through(layer, app, {"type": "http", "method": "GET", "headers": []}, send)
    return [(bytes(name), bytes(value)) for message in heard for name, value in message["headers"]]


def with_vary(fields: bytes, added: bytes) -> bytes:
    """Joined fields with these names in their `Vary`, which is one line then, as Starlette writes it."""
    lines = fields.split(b"\r\n") if b"vary: " in fields else []
    named = [line for line in lines if line.startswith(b"vary: ")]
    if not named:
        return b"%bvary: %b\r\n" % (fields, added)
    place = lines.index(named[0])
    lines[place] = b", ".join([named[0], *(line[6:] for line in named[1:]), added])
    return b"\r\n".join([line for line in lines if line not in named[1:]] if len(named) > 1 else lines)
