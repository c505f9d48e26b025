"""Requests as a server hands them to an app, and what the app answers, without a server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Answer", "Subject", "answer_of", "ask", "get_scope", "interleaved", "medians"]

BATCH = 200

_FIELDS = (
    ("host", "shop.example:8000"),
    ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
    ("accept", "application/json"),
    ("accept-encoding", "gzip, deflate, br"),
)


def get_scope(path: str, headers: Iterable[tuple[str, str]] = ()) -> Scope:
    """A GET as a server makes it: all text and bytes new, so that nothing has its hash computed yet."""
    raw = path.encode()
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "server": ("127.0.0.1", 8000),
        "client": ("127.0.0.1", 50000),
        "scheme": "http",
        "method": "GET",
        "root_path": "",
        "path": raw.decode(),
        "raw_path": raw,
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in (*_FIELDS, *headers)],
        "state": {},
        "extensions": {},
    }


async def no_body() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}


async def _dropped(message: Message) -> None:
    pass


@dataclass(slots=True)
class Answer:
    """What an app sent, put together."""

    status: int = 0
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""

    def field(self, name: bytes) -> bytes:
        """The first field of that name; empty without one."""
        return next((value for key, value in self.headers if key == name), b"")

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], list(message["headers"])
        elif message["type"] == "http.response.body":
            self.body += message.get("body", b"")


async def ask(app: ASGIApp, scope: Scope) -> Answer:
    """One request and its answer."""
    answer = Answer()
    await app(scope, no_body, answer.send)
    return answer


def answer_of(app: ASGIApp, path: str) -> Answer:
    """The second answer to a path: a hit, where the app caches."""

    async def twice() -> Answer:
        await ask(app, get_scope(path))
        return await ask(app, get_scope(path))

    return asyncio.run(twice())


@dataclass(frozen=True, slots=True)
class Subject:
    """What is measured: an app, and the next request to it."""

    app: Callable[[Scope, Receive, Send], Any]
    scope: Callable[[], Scope]


async def _batch(subject: Subject, size: int) -> float:
    scopes = [subject.scope() for _ in range(size)]
    app = subject.app
    began = time.thread_time_ns()
    for scope in scopes:
        await app(scope, no_body, _dropped)
    return (time.thread_time_ns() - began) / size / 1000


async def interleaved(
    subjects: Mapping[str, Subject], batches: int, size: int = BATCH
) -> Mapping[str, Sequence[float]]:
    """Microseconds per request of each batch; the subjects take turns, and each goes first as often as the others."""
    taken: dict[str, list[float]] = {name: [] for name in subjects}
    order = list(subjects)
    for _ in range(batches):
        order.append(order.pop(0))
        for name in order:
            taken[name].append(await _batch(subjects[name], size))
    return taken


def medians(taken: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """The median of each subject's batches, without the first tenth."""
    return {name: median(values[len(values) // 10 :]) for name, values in taken.items()}
