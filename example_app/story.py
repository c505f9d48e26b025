"""The story the demo plays, one method a chapter."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx

from example_app.narrator import Narrator
from example_app.seed import USERS

CLIENTS = 200
CAR = "/products/43"
PATIENCE = 5.0


@dataclass(frozen=True, slots=True)
class Answer:
    """A response and the milliseconds it took."""

    response: httpx.Response
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
    def stale(self) -> bool:
        """Whether what was served had outlived its lifetime."""
        return self.hit and any(part.startswith("ttl=-") for part in self.how)

    @property
    def forwarded(self) -> bool:
        """Whether the app was asked, by this request or by one that it shared."""
        return any(part.startswith("fwd=") for part in self.how)


class Story:
    """One run of the story against a showroom that was just started at ``url``."""

    def __init__(self, url: str) -> None:
        self.out = Narrator()
        self.url = url
        self.client = self.new_client()
        self.tokens: dict[str, str] = {}

    async def play(self) -> bool:
        """Tell every chapter; return whether all facts held."""
        print(f"Showroom: {len(USERS)} users, one process, an SQLite file, in-process response cache.")
        self.out.columns()
        async with self.client:
            await self.first_and_second()
            await self.discount()
            await self.stale_while_refreshing()
            await self.cold_burst()
            await self.baskets()
            await self.admin()
        ending = "Every fact held." if self.out.all_so else "Some facts did NOT hold: see above."
        self.out.heading(ending)
        return self.out.all_so

    async def first_and_second(self) -> None:
        """A miss, hits, and a conditional request."""
        self.out.heading("The first asks the app, the next are answered from memory")
        first = await self.ask("GET", CAR)
        before = await self.queries()
        second = await self.ask("GET", CAR)
        tracked = await self.ask("GET", f"{CAR}?utm_source=mail")
        etag = second.response.headers.get("ETag", "")
        known = await self.ask("GET", CAR, headers={"If-None-Match": etag})
        spent = await self.queries() - before
        self.out.fact("the first was forwarded to the app", so=first.forwarded and not first.hit)
        self.out.fact("the second was a hit, the same answer", so=second.hit and second.body == first.body)
        self.out.fact("a parameter that the route does not declare does not split the cache", so=tracked.hit)
        self.out.fact("who knows the ETag gets a 304 without a body", so=bool(etag) and known.status == 304)
        self.out.fact(f"those three ran {spent} SQL queries", so=spent == 0)

    async def discount(self) -> None:
        """A mutation, seen at once on every page that shows it."""
        self.out.heading("A discount is seen at once, on every page that shows the price")
        old = (await self.ask("GET", CAR)).body["price"]
        await self.ask("GET", "/search?q=911")
        applied = await self.ask("POST", f"{CAR}/discount", who="admin", json={"percent": 10})
        detail = await self.ask("GET", CAR)
        found = await self.ask("GET", "/search?q=911")
        again = await self.ask("GET", CAR)
        new = applied.body["price"]
        purged = applied.response.headers.get("Cacheinval-Purge")
        self.out.fact("the purge was done before the response left, after the commit", so=purged == "done")
        self.out.fact(f"its page: ${old:,} became ${new:,}", so=new < old and detail.body["price"] == new)
        self.out.fact("the search results say the same", so=found.body["products"][0]["price"] == new)
        self.out.fact("one forward, then hits again", so=detail.forwarded and again.hit)

    async def stale_while_refreshing(self) -> None:
        """An answer past its lifetime is served while a new one is fetched."""
        self.out.heading("Past its lifetime (1 s here) an answer is still served, and refreshed in the background")
        await self.ask("GET", "/brands")
        before = await self.queries()
        stale = await self.ask_until("GET", "/brands", lambda answer: answer.stale)
        fresh = await self.ask_until("GET", "/brands", lambda answer: answer.hit and not answer.stale)
        spent = await self.queries() - before
        self.out.fact(f"stale, and nobody waited: {stale.milliseconds:.1f} ms", so=stale.stale)
        self.out.fact("then fresh, without a request that waited for it", so=fresh.hit and not fresh.stale)
        self.out.fact(f"the refresh ran {spent} SQL query", so=spent == 1)

    async def cold_burst(self) -> None:
        """Many clients at once on a page nobody has asked for."""
        self.out.heading(f"{CLIENTS} clients at once on a cold page that takes 300 ms to make")
        before = await self.queries()
        began = time.perf_counter()
        async with self.new_client() as crowd:
            asked = (self.send("GET", "/slow-report", client=crowd) for _ in range(CLIENTS))
            answers = await asyncio.gather(*asked)
        seconds = time.perf_counter() - began
        spent = await self.queries() - before
        came = Counter(kind_of(answer) for answer in answers)
        for kind, count in sorted(came.items(), key=lambda item: item[1]):
            one = next(answer for answer in answers if kind_of(answer) == kind)
            self.out.request(one.response, "-", one.milliseconds, f"x {count} {kind}")
        alike = {answer.response.content for answer in answers}
        all_200 = all(answer.status == 200 for answer in answers)
        self.out.fact(f"{len(answers)} equal answers in {seconds:.2f} s altogether", so=all_200 and len(alike) == 1)
        self.out.fact(f"{CLIENTS} clients, {spent} SQL query", so=spent == 1)

    async def baskets(self) -> None:
        """A user's page, which no one else gets."""
        self.out.heading("Alice's basket is hers")
        first = await self.ask("GET", "/me/basket", who="alice")
        again = await self.ask("GET", "/me/basket", who="alice")
        bobs = await self.ask("GET", "/me/basket", who="bob")
        nobody = await self.ask("GET", "/me/basket")
        forged = await self.ask("GET", "/me/basket", headers={"Authorization": "Bearer 1.9999999999.00"})
        added = await self.ask("PUT", "/me/basket/1", who="alice", json={"quantity": 1})
        after = await self.ask("GET", "/me/basket", who="alice")
        self.out.fact("alice's second look is a hit", so=again.hit and again.body == first.body)
        self.out.fact(
            "bob gets his own, not alice's", so=not bobs.hit and bobs.body["user_id"] != first.body["user_id"]
        )
        self.out.fact("without a good token it is 401, never a hit", so={nobody.status, forged.status} == {401})
        more = len(after.body["items"]) - len(first.body["items"])
        self.out.fact("alice sees what she put in at once", so=added.status == 204 and more == 1)

    async def admin(self) -> None:
        """A page that is the same for all who pass its guard."""
        self.out.heading("The admin report is kept once, and guarded on every request")
        first = await self.ask("GET", "/admin/report", who="admin")
        bobs = await self.ask("GET", "/admin/report", who="bob")
        again = await self.ask("GET", "/admin/report", who="admin")
        nobody = await self.ask("GET", "/admin/report")
        self.out.fact("a hit for the administrator", so=first.status == 200 and again.hit)
        self.out.fact("403 for bob and 401 for nobody, kept page or not", so=(bobs.status, nobody.status) == (403, 401))

    async def ask(
        self,
        method: str,
        path: str,
        *,
        who: str = "",
        json: object = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """Send a request as ``who`` and print its line."""
        answer = await self.send(method, path, who=who, json=json, headers=headers)
        self.out.request(answer.response, who or "-", answer.milliseconds)
        return answer

    async def ask_until(self, method: str, path: str, wanted: Callable[[Answer], bool]) -> Answer:
        """Ask until an answer is as wanted, or patience ends; print only the last."""
        give_up = time.monotonic() + PATIENCE
        answer = await self.send(method, path)
        while not wanted(answer) and time.monotonic() < give_up:
            await asyncio.sleep(0.02)
            answer = await self.send(method, path)
        self.out.request(answer.response, "-", answer.milliseconds)
        return answer

    async def send(
        self,
        method: str,
        path: str,
        *,
        who: str = "",
        json: object = None,
        headers: dict[str, str] | None = None,
        client: httpx.AsyncClient | None = None,
    ) -> Answer:
        """Send a request as ``who``, signing in first if need be."""
        sent = dict(headers or {})
        if who:
            sent["Authorization"] = f"Bearer {await self.token(who)}"
        began = time.perf_counter()
        response = await (client or self.client).request(method, path, json=json, headers=sent)
        return Answer(response, (time.perf_counter() - began) * 1000)

    def new_client(self) -> httpx.AsyncClient:
        """Return a client with room for the crowd, a connection each."""
        limits = httpx.Limits(max_connections=CLIENTS, max_keepalive_connections=CLIENTS)
        # trust_env=False: a proxy of the machine's has no business between us and ourselves.
        return httpx.AsyncClient(base_url=self.url, limits=limits, timeout=30, trust_env=False)

    async def token(self, who: str) -> str:
        """Return the user's token, fetched once."""
        if who not in self.tokens:
            form = {"username": who, "password": USERS[who][0]}
            answer = await self.client.post("/token", data=form)
            self.tokens[who] = answer.raise_for_status().json()["access_token"]
        return self.tokens[who]

    async def queries(self) -> int:
        """Return how many SQL statements the server has run so far."""
        answer = await self.client.get("/debug/queries")
        return int(answer.json()["queries"])


def kind_of(answer: Answer) -> str:
    """Name how an answer came, in one word."""
    if "collapsed" in answer.how:
        return "collapsed"
    return "hit" if answer.hit else "forwarded"
