"""A shop with an inspector, and what its page does: load, keep the cookie, send the token back."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi_cacheinval import cached, invalidates
from fastapi_cacheinval.inspector import Inspector
from tests.helpers.http import Answer, Call, Shop, scope_of, until

LOCAL = {"host": "localhost", "server": ("127.0.0.1", 8000), "client": ("127.0.0.1", 50_000)}


class Inspected:
    """An app with `GET /items/{item}` and `PUT /items/{item}`, and the inspector at `/_cache`."""

    def __init__(self, *, shop: Mapping[str, Any] | None = None, **options: Any) -> None:
        self.shop = Shop(**(shop or {}))
        self.inspector = Inspector(self.shop.cache, **(options or {"debug": True}))
        self.shop.app.mount("/_cache", self.inspector)
        self.cookie = self.token = ""

        @self.shop.app.get("/items/{item}", dependencies=[cached(ttl=60, tags=["item:{item}", "items"])])
        async def read(item: str) -> dict[str, str]:
            self.shop.count()
            return {"secret of": item}

        @self.shop.app.put("/items/{item}", dependencies=[invalidates("item:{item}")])
        async def write(item: str) -> None: ...

    async def get(self, path: str = "/", *, at: str = "/_cache", **more: Any) -> Answer:
        """One request to the inspector, as from this machine."""
        return await self.shop.ask(f"{at}{path}", **{**LOCAL, **more})

    async def json(self, path: str, **more: Any) -> Any:
        """What the inspector answers to a request that it grants."""
        answer = await self.get(path, **more)
        assert answer.status_code == 200, answer
        return json.loads(answer.body)

    async def load(self) -> Answer:
        """Load the page, as a browser does: its cookie and its token are kept."""
        answer = await self.get()
        self.cookie = answer.headers["set-cookie"].partition(";")[0]
        found = re.search(rb'name="inspector-token" content="([^"]+)"', answer.body)
        assert found is not None
        self.token = found[1].decode()
        return answer

    async def purge(
        self, body: Any, *, headers: Mapping[str, str] | None = None, path: str = "/_cache/api/purge"
    ) -> Answer:
        """Ask for a purge, as the page does; `headers` are in place of the page's own."""
        own = {
            "content-type": "application/json",
            "cookie": self.cookie,
            "x-cacheinval-inspector": self.token,
            "sec-fetch-site": "same-origin",
        }
        text = body if isinstance(body, bytes) else json.dumps(body).encode()
        fields = {name: value for name, value in {**own, **(headers or {})}.items() if value}
        scope = scope_of(path, method="POST", headers=fields, **LOCAL)
        messages: list[Any] = []
        # In two parts, as a network may cut it.
        parts = [
            {"type": "http.request", "body": text[:10], "more_body": True},
            {"type": "http.request", "body": text[10:], "more_body": False},
        ]

        async def receive() -> Any:
            return parts.pop(0) if parts else {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            messages.append(message)

        await self.shop.app(scope, receive, send)
        return Answer(messages)

    def watch(self, **more: Any) -> Call:
        """Open the stream of events."""
        return Call(self.shop.app, scope_of("/_cache/api/events", **{**LOCAL, **more}))

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[Call]:
        """A page that has been told the state when the block begins, and is open until it ends."""
        stream = self.watch()
        await until(lambda: events_of(stream), "the state")
        try:
            yield stream
        finally:
            stream.go_away()
            await stream.answer()


def events_of(call: Call) -> list[tuple[str, Any]]:
    """The events that have come, each as its name and its data."""
    found: list[tuple[str, Any]] = []
    for block in call.body.decode().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines())
        if "data" in fields:
            found.append((fields["event"], json.loads(fields["data"])))
    return found


def listed(call: Call, kind: str) -> list[Any]:
    """What the stream has told of one kind."""
    return [each for name, data in events_of(call) if name == "feed" for each in data["events"] if each["kind"] == kind]
