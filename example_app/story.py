"""The story the demo plays, one method a chapter; the last one, about an outage, is in its own module."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from math import inf

from example_app.asking import CLIENTS, Asker, kind_of
from example_app.main import NAMESPACE
from example_app.narrator import Narrator
from example_app.outage import Outage
from example_app.watching import Watch
from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.testing import Replicas

CAR = "/products/43"
BOUND_MS = 2000.0


class Story:
    """One run of the story against replicas that were just started, by their letters.

    Their Redis is killed in it where they have one of their own.
    """

    def __init__(self, replicas: Replicas, urls: dict[str, str], *, own_redis: bool) -> None:
        self.out = Narrator()
        self.asker = Asker(urls, self.out)
        self.ask = self.asker.ask
        self.replicas = replicas
        self.own_redis = own_redis

    async def play(self) -> bool:
        """Tell every chapter; return whether all facts held."""
        self.out.columns()
        async with self.asker.client:
            await self.first_and_second()
            await self.discount()
            await self.discount_elsewhere()
            await self.purge_by_hand()
            await self.stale_while_refreshing()
            await self.cold_burst()
            await self.baskets()
            await self.admin()
            if self.own_redis:
                await Outage(self.replicas, self.asker, CAR).play()
            else:
                self.out.heading("Redis is yours, and is not killed: without REDIS_URL there is one more chapter")
        ending = "Every fact held." if self.out.all_so else "Some facts did NOT hold: see above."
        self.out.heading(ending)
        return self.out.all_so

    async def first_and_second(self) -> None:
        """A miss, hits here and elsewhere, and a conditional request."""
        self.out.heading("The first asks the app, the next are answered from the cache, whichever replica they reach")
        one, other, third = self.asker.urls
        first = await self.ask("GET", CAR)
        before = await self.asker.queries()
        second = await self.ask("GET", CAR, note="from memory")
        elsewhere = await self.ask("GET", CAR, at=other, note="from Redis")
        tracked = await self.ask("GET", f"{CAR}?utm_source=mail", at=other, note="from memory")
        etag = second.response.headers.get("ETag", "")
        known = await self.ask("GET", CAR, at=third, headers={"If-None-Match": etag})
        spent = await self.asker.queries() - before
        self.out.fact("the first was forwarded to the app", so=first.forwarded and not first.hit)
        self.out.fact("the second was a hit, the same answer", so=second.hit and second.body == first.body)
        self.out.fact(f"what {one} had made {other} served too", so=elsewhere.shared and elsewhere.body == first.body)
        self.out.fact("a parameter that the route does not declare does not split the cache", so=tracked.hit)
        self.out.fact("who knows the ETag gets a 304 without a body", so=bool(etag) and known.status == 304)
        self.out.fact(f"those four ran {spent} SQL queries", so=spent == 0)

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
        self.out.fact("the purge was done before the response left, after the commit", so=applied.purge == "done")
        self.out.fact(f"its page: ${old:,} became ${new:,}", so=new < old and detail.body["price"] == new)
        self.out.fact("the search results say the same", so=found.body["products"][0]["price"] == new)
        self.out.fact("hits again after that", so=again.hit and again.body["price"] == new)

    async def discount_elsewhere(self) -> None:
        """How long after the answer the other replicas have it, measured by asking them all the time."""
        one, others = self.asker.first, self.asker.others
        self.out.heading(f"A discount that is given on {one} is seen on {' and '.join(others)}: how soon?")
        async with Watch(self.asker, CAR, others) as watch:
            applied = await self.ask("POST", f"{CAR}/discount", who="admin", json={"percent": 15})
            answered = time.perf_counter()
            new = applied.body["price"]
            seen = dict(
                zip(others, await asyncio.gather(*(watch.until_price(name, new) for name in others)), strict=True)
            )
        waits = {name: (sight.ended - answered) * 1000 for name, sight in seen.items() if sight is not None}
        for name, sight in seen.items():
            if sight is not None:
                self.asker.told(sight.answer, note=f"{max(waits[name], 0):.1f} ms after the discount's answer")
        stale = watch.others_than(new, since=answered, until=inf, names=others)
        told = ", ".join(f"{name} {max(wait, 0):.1f} ms" for name, wait in waits.items())
        within = len(waits) == len(others) and all(wait < BOUND_MS for wait in waits.values())
        self.out.fact(f"new price: {told} after {one} had answered; the bound is {BOUND_MS:.0f} ms", so=within)
        self.out.fact(
            f"{watch.count} requests meanwhile, {len(stale)} of them asked after that and answered with the old price",
            so=watch.all_well and within,
        )

    async def purge_by_hand(self) -> None:
        """A program that is no replica purges, and waits until every replica obeys."""
        self.out.heading('Another program purges by hand: await cache.invalidate("products", wait="all")')
        await self.ask("GET", "/products")
        async with HTTPCache.from_url(self.replicas.redis_url, namespace=NAMESPACE) as publisher:
            receipt = await publisher.invalidate("products", wait="all")
        after = await self.ask("GET", "/products", at=self.asker.others[-1])
        count, milliseconds = receipt.replicas, (receipt.seconds or 0.0) * 1000
        self.out.fact(
            f"its receipt: line {receipt.seq} of the log, {count} replicas have applied it after {milliseconds:.1f} ms",
            so=count == len(self.asker.urls),
        )
        self.out.fact("the next request was answered by the app", so=after.forwarded)

    async def stale_while_refreshing(self) -> None:
        """An answer past its lifetime is served while a new one is fetched."""
        self.out.heading("Past its lifetime (1 s here) an answer is still served, and refreshed in the background")
        await self.ask("GET", "/brands")
        before = await self.asker.queries()
        stale = await self.asker.ask_until("/brands", lambda answer: answer.stale)
        fresh = await self.asker.ask_until("/brands", lambda answer: answer.hit and not answer.stale)
        spent = await self.asker.queries() - before
        self.out.fact(f"stale, and nobody waited: {stale.milliseconds:.1f} ms", so=stale.stale)
        self.out.fact("then fresh, without a request that waited for it", so=fresh.hit and not fresh.stale)
        self.out.fact(f"the refresh ran {spent} SQL query", so=spent == 1)

    async def cold_burst(self) -> None:
        """Many clients at once, spread over the replicas, on a page nobody has asked for."""
        names = list(self.asker.urls)
        self.out.heading(
            f"{CLIENTS} clients at once, over {len(names)} replicas, on a cold page that takes 300 ms to make"
        )
        before = await self.asker.queries()
        began = time.perf_counter()
        async with Asker.new_client() as crowd:
            asked = (
                self.asker.send("GET", "/slow-report", at=names[number % len(names)], client=crowd)
                for number in range(CLIENTS)
            )
            answers = await asyncio.gather(*asked)
        seconds = time.perf_counter() - began
        spent = await self.asker.queries() - before
        came = Counter((kind_of(answer), answer.at) for answer in answers)
        for (kind, name), count in sorted(came.items(), key=lambda item: (item[1], item[0])):
            one = next(answer for answer in answers if (kind_of(answer), answer.at) == (kind, name))
            self.asker.told(one, note=f"x {count} {kind}")
        alike = {answer.response.content for answer in answers}
        all_200 = all(answer.status == 200 for answer in answers)
        self.out.fact(f"{len(answers)} equal answers in {seconds:.2f} s altogether", so=all_200 and len(alike) == 1)
        self.out.fact(f"{CLIENTS} clients, {spent} SQL query", so=spent == 1)

    async def baskets(self) -> None:
        """A user's page, which no one else gets."""
        self.out.heading("Alice's basket is hers")
        one, other, third = self.asker.urls
        first = await self.ask("GET", "/me/basket", who="alice")
        again = await self.ask("GET", "/me/basket", at=other, who="alice")
        bobs = await self.ask("GET", "/me/basket", at=other, who="bob")
        nobody = await self.ask("GET", "/me/basket", at=third)
        forged = await self.ask("GET", "/me/basket", at=other, headers={"Authorization": "Bearer 1.9999999999.00"})
        added = await self.ask("PUT", "/me/basket/1", at=one, who="alice", json={"quantity": 1})
        after = await self.ask("GET", "/me/basket", at=one, who="alice")
        self.out.fact("alice's second look is a hit, on another replica", so=again.shared and again.body == first.body)
        self.out.fact(
            "bob gets his own, not alice's", so=not bobs.hit and bobs.body["user_id"] != first.body["user_id"]
        )
        self.out.fact("without a good token it is 401, never a hit", so={nobody.status, forged.status} == {401})
        more = len(after.body["items"]) - len(first.body["items"])
        self.out.fact("alice sees what she put in at once", so=added.status == 204 and more == 1)

    async def admin(self) -> None:
        """A page that is the same for all who pass its guard."""
        self.out.heading("The admin report is kept once, and guarded on every request")
        _, other, third = self.asker.urls
        first = await self.ask("GET", "/admin/report", who="admin")
        bobs = await self.ask("GET", "/admin/report", at=other, who="bob")
        again = await self.ask("GET", "/admin/report", at=other, who="admin")
        nobody = await self.ask("GET", "/admin/report", at=third)
        self.out.fact("a hit for the administrator", so=first.status == 200 and again.shared)
        self.out.fact("403 for bob and 401 for nobody, kept page or not", so=(bobs.status, nobody.status) == (403, 401))
