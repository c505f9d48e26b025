"""Requests to the replicas, each printed as it is answered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx

from example_app.narrator import Narrator
from example_app.replicas import HOST
from example_app.seed import USERS

CLIENTS = 200
PATIENCE = 10.0


@dataclass(frozen=True, slots=True)
class Answer:
    """A response, the replica that gave it, when it was asked for and the milliseconds it took."""

    response: httpx.Response
    at: str
    began: float
    milliseconds: float

    @property
    def body(self) -> Any:
        """The decoded JSON."""
        return self.response.json()

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.response.status_code

    @property
    def how(self) -> list[str]:
        """The parameters of ``Cache-Status``, such as ``hit`` and ``ttl=290``."""
        status = str(self.response.headers.get("Cache-Status", ""))
        return status.split("; ")[1:]

    @property
    def hit(self) -> bool:
        """Whether a stored response was served, fresh or stale."""
        return "hit" in self.how

    @property
    def shared(self) -> bool:
        """Whether it came from the cache, be it from another request's forward that was being stored."""
        return self.hit or "collapsed" in self.how

    @property
    def stale(self) -> bool:
        """Whether what was served had outlived its lifetime."""
        return self.hit and any(part.startswith("ttl=-") for part in self.how)

    @property
    def forwarded(self) -> bool:
        """Whether the app was asked, by this request or by one that it shared."""
        return any(part.startswith("fwd=") for part in self.how)

    @property
    def disconnected(self) -> bool:
        """Whether the replica says that Redis is out of its reach."""
        return "detail=disconnected" in self.how

    @property
    def purge(self) -> str | None:
        """What a mutation says of its purge: ``done`` or ``queued``."""
        return self.response.headers.get("Cacheinval-Purge")


class Asker:
    """Asks replicas by their letters, as a visitor or as one of the shop's users."""

    def __init__(self, urls: dict[str, str], out: Narrator) -> None:
        self.urls = urls
        self.out = out
        self.first = next(iter(urls))
        self.client = self.new_client()
        self._tokens: dict[str, str] = {}

    @property
    def others(self) -> list[str]:
        """The letters of all replicas but the first."""
        return [name for name in self.urls if name != self.first]

    @staticmethod
    def new_client() -> httpx.AsyncClient:
        """Return a client with room for the crowd, a connection each."""
        limits = httpx.Limits(max_connections=CLIENTS, max_keepalive_connections=CLIENTS)
        # trust_env=False: a proxy of the machine's has no business between us and ourselves.
        # By the shop's name, as a load balancer hands it on.
        return httpx.AsyncClient(limits=limits, timeout=30, trust_env=False, headers={"Host": HOST.decode()})

    async def ask(
        self,
        method: str,
        path: str,
        *,
        at: str = "",
        who: str = "",
        json: object = None,
        headers: dict[str, str] | None = None,
        note: str = "",
    ) -> Answer:
        """Send a request as ``who`` and print its line."""
        answer = await self.send(method, path, at=at, who=who, json=json, headers=headers)
        self.told(answer, who, note)
        return answer

    async def ask_until(self, path: str, wanted: Callable[[Answer], bool], *, at: str = "", note: str = "") -> Answer:
        """Get until an answer is as wanted, or patience ends; print only the last."""
        give_up = time.monotonic() + PATIENCE
        answer = await self.send("GET", path, at=at)
        while not wanted(answer) and time.monotonic() < give_up:
            await asyncio.sleep(0.02)
            answer = await self.send("GET", path, at=at)
        self.told(answer, note=note)
        return answer

    def told(self, answer: Answer, who: str = "", note: str = "") -> None:
        """Print the line of an answer."""
        self.out.request(answer.response, answer.at, who or "-", answer.milliseconds, note)

    async def send(
        self,
        method: str,
        path: str,
        *,
        at: str = "",
        who: str = "",
        json: object = None,
        headers: dict[str, str] | None = None,
        client: httpx.AsyncClient | None = None,
    ) -> Answer:
        """Send a request as ``who`` to a replica, the first unless named, signing in first if need be."""
        sent = dict(headers or {})
        if who:
            sent["Authorization"] = f"Bearer {await self._token(who)}"
        name = at or self.first
        began = time.perf_counter()
        response = await (client or self.client).request(method, self.urls[name] + path, json=json, headers=sent)
        return Answer(response, name, began, (time.perf_counter() - began) * 1000)

    async def _token(self, who: str) -> str:
        if who not in self._tokens:
            form = {"username": who, "password": USERS[who][0]}
            answer = await self.client.post(f"{self.urls[self.first]}/token", data=form)
            self._tokens[who] = answer.raise_for_status().json()["access_token"]
        return self._tokens[who]

    async def queries(self) -> int:
        """Return how many SQL statements all replicas together have run so far."""
        answers = await asyncio.gather(*(self.send("GET", "/debug/queries", at=name) for name in self.urls))
        return sum(int(answer.body["queries"]) for answer in answers)


def kind_of(answer: Answer) -> str:
    """Name how an answer came, in one word."""
    if "collapsed" in answer.how:
        return "collapsed"
    return "hit" if answer.hit else "forwarded"
