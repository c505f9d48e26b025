"""One shop, several processes: what a load balancer would do for them, and who is who."""

from __future__ import annotations

import os

from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOST = b"showroom"
NAMES = "ABCDEFGHIJ"


def replica_urls() -> list[str]:
    """Where the replicas listen, as REPLICAS says, white space between; empty for a shop of one process."""
    return os.environ.get("REPLICAS", "").split()


def name_of(scope: Scope) -> str:
    """The letter of the replica that answers, by the port that was asked."""
    ports = [url.rpartition(":")[2] for url in replica_urls()]
    _, port = scope.get("server") or ("", 0)
    return NAMES[ports.index(str(port))] if str(port) in ports else "-"


class OneOfMany:
    """Gives the shop one host name, whichever replica was asked, and says in `X-Replica` who answered.

    The host is part of the cache key: under three names there would be three of each page. It stands outside the cache,
    or a stored response would name the replica that made it. A load balancer would hand the name on: who asks by it, as
    the story does, may be answered by the server itself, and then without the field.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on under the shop's name."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        name = name_of(scope).encode()
        headers = [pair for pair in scope["headers"] if pair[0] != b"host"]

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), (b"x-replica", name)]}
            await send(message)

        await self.app({**scope, "headers": [*headers, (b"host", HOST)]}, receive, named)
