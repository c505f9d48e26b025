"""A real Varnish with xkey in front of replicas of the example app: what it keeps, and what a purge makes of it."""

from __future__ import annotations

import asyncio
import itertools
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from fastapi_cacheinval import Receipt
from fastapi_cacheinval.contrib.cdn import Varnish as Adapter
from fastapi_cacheinval.contrib.cdn import purge_of
from fastapi_cacheinval.testing import Replicas
from tests.servers import tcp_proxy
from tests.servers.ports import free_port
from tests.system.varnish import Varnish, varnish_before

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180)]

APP = "tests.system.varnish_app:app"
TOLD = ("xkey", "surrogate-key", "surrogate-control", "cache-tag", "cdn-cache-control")
PATIENCE = 30.0


@pytest.fixture
def directory() -> Iterator[Path]:
    """A short path: varnishd keeps sockets in it."""
    with tempfile.TemporaryDirectory(prefix="v") as name:
        yield Path(name)


@dataclass
class Front:
    """A Varnish, the replicas behind it, and a client with an administrator's token."""

    varnish: Varnish
    urls: list[str]
    client: httpx.AsyncClient
    token: dict[str, str] = field(default_factory=dict[str, str])

    async def get(self, path: str, **more: Any) -> httpx.Response:
        """Read through Varnish."""
        return await self.client.get(self.varnish.url + path, **more)

    async def sign_in(self) -> None:
        """Become an administrator."""
        form = {"username": "admin", "password": "showroom"}
        answer = await self.client.post(f"{self.urls[0]}/token", data=form)
        self.token = {"authorization": f"Bearer {answer.json()['access_token']}"}

    async def set_price(self, product: int, price: int, replica: int = 0) -> None:
        """Change what everybody is to see."""
        url = f"{self.urls[replica]}/products/{product}"
        answer = await self.client.put(url, json={"list_price": price}, headers=self.token)
        assert answer.headers["cacheinval-purge"] == "done", (answer, answer.headers)

    async def purger(self, replica: int = 0) -> dict[str, Any]:
        """How the purger of a replica stands."""
        answer = await self.client.get(f"{self.urls[replica]}/test/purger")
        return dict(answer.json())

    async def purged(self, received: int, replica: int = 0) -> None:
        """Wait until Varnish has confirmed what the purger of a replica has been told since it had received so much."""
        deadline = time.monotonic() + PATIENCE
        while True:
            state = await self.purger(replica)
            if state["received"] > received and not state["waiting"]:
                return
            assert time.monotonic() < deadline, (state, self.varnish.tail())

    async def purge(self, path: str, replica: int = 0) -> None:
        """Purge by hand, and wait until Varnish has confirmed it."""
        received = (await self.purger(replica))["received"]
        assert (await self.client.post(self.urls[replica] + path)).is_success
        await self.purged(received, replica)


def hit_in_varnish(answer: httpx.Response) -> bool:
    """Whether Varnish answered by itself: it names the request that fetched it, too."""
    return len(answer.headers["x-varnish"].split()) == 2


@asynccontextmanager
async def front(directory: Path, count: int = 3) -> AsyncIterator[Front]:
    """Replicas of the example app, and Varnish in front of them in turn."""
    ports, own = [free_port() for _ in range(count)], free_port()
    environment = {
        "EXAMPLE_DB": str(directory / "shop.db"),
        "EXAMPLE_SECRET": "the same in all",
        "REPLICAS": " ".join(f"http://127.0.0.1:{port}" for port in ports),
        "VARNISH_URL": f"http://127.0.0.1:{own}",
    }
    async with Replicas(APP, count, environment=environment, ports=ports) as shop, httpx.AsyncClient() as client:
        with varnish_before(directory, ports, own) as varnish:
            yield Front(varnish, list(shop.urls), client)


async def test_varnish_answers_and_shows_nothing(directory: Path) -> None:
    """A cached route is a hit in Varnish, for as long as the app says; neither there nor at the app is a tag shown."""
    async with front(directory) as shop:
        first, second = [await shop.get("/products/1") for _ in range(2)]
        assert not hit_in_varnish(first)
        assert hit_in_varnish(second)
        assert first.json() == second.json()
        at_the_app = await shop.client.get(f"{shop.urls[0]}/products/1")
        for answer in (first, second, at_the_app):
            assert not [name for name in TOLD if name in answer.headers], answer.headers
            assert answer.headers["cache-control"] == "no-cache"
        # Who says that it is Varnish is told; what was stored for it is what others get, without a tag.
        told = await shop.client.get(f"{shop.urls[0]}/products/1", headers={"x-varnish": "1"})
        assert "product:1" in told.headers["xkey"]
        assert told.headers["surrogate-control"].endswith("stale-while-revalidate=3600, stale-if-error=86400")
        forged = await shop.get("/products/2", headers={"x-varnish": "no", "xkey": "evil", "surrogate-control": "x"})
        assert forged.is_success
        assert hit_in_varnish(await shop.get("/products/2"))


async def test_varnish_keeps_nothing_else(directory: Path) -> None:
    """What is each caller's own, what has no policy and what has more tags than fit goes to the app every time."""
    async with front(directory, 1) as shop:
        await shop.sign_in()
        for path in ("/test/plain", "/test/too-many", "/nowhere"):
            answers = [await shop.get(path) for _ in range(3)]
            assert not any(map(hit_in_varnish, answers)), path
        baskets = [await shop.get("/me/basket", headers=shop.token) for _ in range(2)]
        assert not any(map(hit_in_varnish, baskets))
        assert "hit" in baskets[1].headers["cache-status"]
        # Without the token there is a 401, and it is nobody's from then on.
        assert [(await shop.get("/me/basket")).status_code for _ in range(2)] == [401, 401]
        calls = (await shop.client.get(f"{shop.urls[0]}/test/calls")).json()
        assert calls == {"plain": 3, "too-many": 1}


async def test_tags_in_several_lines(directory: Path) -> None:
    """The last of 400 tags, in the last of several lines, purges it as the first does; so does its path."""
    async with front(directory, 1) as shop:
        told = await shop.client.get(f"{shop.urls[0]}/test/many", headers={"x-varnish": "1"})
        assert len(told.headers.get_list("xkey")) > 1
        for purge in (
            "/test/purge/one-of-many-tags-number-0000",
            "/test/purge/one-of-many-tags-number-0399",
            "/test/purge-path?path=/test/many",
        ):
            before = (await shop.get("/test/many")).json()
            hit = await shop.get("/test/many")
            assert hit_in_varnish(hit)
            assert hit.json() == before
            await shop.purge(purge)
            after = await shop.get("/test/many")
            assert not hit_in_varnish(after)
            assert after.json() != before


class Origin(BaseHTTPRequestHandler):
    """Answers with another body each time, and with the fields that its server has."""

    protocol_version = "HTTP/1.1"
    server: Any

    def do_GET(self) -> None:
        self.server.asked += 1
        body = b"%d" % self.server.asked
        self.send_response(200)
        for name, value in (*self.server.fields.items(), ("content-length", str(len(body)))):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # what it is called there
        pass


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        ({"surrogate-control": "max-age=30"}, True),
        ({"surrogate-control": "max-age=30", "age": "27"}, True),
        ({"surrogate-control": "max-age=30", "age": "35"}, False),
        ({"surrogate-control": "max-age=0, stale-while-revalidate=30", "age": "100"}, True),
        ({"surrogate-control": "no-store"}, False),
        ({"cache-control": "max-age=30"}, False),
        ({}, False),
    ],
)
def test_the_vcl_keeps_what_it_is_told_to_keep(directory: Path, fields: dict[str, str], kept: bool) -> None:
    """The lifetime less the age that it had, the stale window from now where it is stale; nothing without a word."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Origin) as server:
        origin: Any = server
        origin.asked, origin.fields = 0, fields
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            with varnish_before(directory, [server.server_port]) as varnish:
                first, second = (httpx.get(varnish.url, timeout=PATIENCE) for _ in range(2))
        finally:
            server.shutdown()
            thread.join()
    assert hit_in_varnish(second) is kept
    assert (second.text == first.text) is kept
    assert not any(name in second.headers for name in TOLD)


async def test_varnish_revalidates(directory: Path) -> None:
    """Past the lifetime it asks with the ETag; a 304 renews its copy, for the lifetime that this says."""
    async with front(directory, 1) as shop:
        await shop.get("/test/short")
        renewed = hits = 0
        deadline = time.monotonic() + PATIENCE
        while renewed < 2:
            assert time.monotonic() < deadline
            answer = await shop.get("/test/short")
            assert answer.json() == "short"
            assert int(answer.headers.get("age", 0)) <= 2
            hits += hit_in_varnish(answer)
            renewed = shop.varnish.counted("fetch_304")
        calls = (await shop.client.get(f"{shop.urls[0]}/test/calls")).json()["short"]
        assert hits > calls


async def test_soft_purge_is_served_stale_while_it_is_fetched(directory: Path) -> None:
    """The next read is answered at once with what there was; what comes after it is new, and is kept."""
    async with front(directory, 1) as shop:
        old = (await shop.get("/test/soft")).json()
        assert hit_in_varnish(await shop.get("/test/soft"))
        await shop.purge("/test/purge/soft?soft=true")
        stale = await shop.get("/test/soft")
        assert (hit_in_varnish(stale), stale.json()) == (True, old)
        deadline = time.monotonic() + PATIENCE
        while (new := await shop.get("/test/soft")).json() == old:
            assert time.monotonic() < deadline
        while not hit_in_varnish(again := await shop.get("/test/soft")):
            assert time.monotonic() < deadline
        assert again.json() == new.json()


class Watch:
    """What must be seen of each product, and what readers saw."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.floor: Counter[int] = Counter()
        self.reads = 0
        self.hits = 0
        self.violations: list[str] = []
        self.fresh_after: list[float] = []

    async def read(self, shop: Front, product: int) -> None:
        """Read once through Varnish."""
        floor = self.floor[product]
        answer = await shop.get(f"/products/{product}")
        self.reads += 1
        self.hits += hit_in_varnish(answer)
        seen = answer.json()["list_price"]
        if seen < floor:
            self.violations.append(f"product {product}: {seen} after {floor} ({answer.headers['cache-status']})")

    @property
    def going(self) -> bool:
        """For some seconds, and on a busy machine until there is enough to tell something from."""
        gone = time.monotonic() - self.began
        return gone < 5 or (gone < PATIENCE and (self.hits < 100 or len(self.fresh_after) < 20))

    async def write(self, shop: Front, product: int, replica: int) -> None:
        """Change a product again and again; from when Varnish has confirmed it, it is what must be seen."""
        for price in itertools.count(100_000):
            if not self.going:
                return
            received = (await shop.purger(replica))["received"]
            await shop.set_price(product, price, replica)
            answered = time.monotonic()
            await shop.purged(received, replica)
            self.floor[product] = price
            self.fresh_after.append(time.monotonic() - answered)


async def test_no_read_is_older_than_a_confirmed_purge(
    directory: Path, record_property: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Readers refill Varnish at once from three replicas while others write: nobody sees what was given up."""
    async with front(directory) as shop:
        await shop.sign_in()
        watch = Watch()

        async def reader(product: int) -> None:
            while watch.going:
                await watch.read(shop, product)

        async with asyncio.TaskGroup() as group:
            for product, replica in ((1, 0), (2, 1), (3, 2)):
                group.create_task(watch.write(shop, product, replica))
                for _ in range(3):
                    group.create_task(reader(product))
        await watch.read(shop, 1)
        began = time.perf_counter()
        for _ in range(200):
            await shop.get("/products/1")
        hit = (time.perf_counter() - began) / 200
    assert not watch.violations, (len(watch.violations), watch.violations[:5])
    assert len(watch.fresh_after) >= 20
    assert watch.hits >= 100
    said = (
        f"{watch.reads} reads through Varnish, {watch.hits} of them hits there, {len(watch.fresh_after)} writes; "
        f"a hit takes {1000 * hit:.2f} ms, from a mutation's answer to a fresh Varnish "
        f"{1000 * statistics.median(watch.fresh_after):.1f} ms (median)"
    )
    record_property("figures", said)
    with capsys.disabled():
        sys.stdout.write(f"\n{said}\n")


async def naively_purged(shop: Front, product: int) -> None:
    """Purge Varnish as soon as the write is answered, as is done where nobody asks the replicas."""
    receipt = Receipt(0, 0, (f"product:{product}", "products"), soft=False, paths=(f"/products/{product}",))
    for request in Adapter(shop.varnish.url).requests(purge_of(receipt)):
        answer = await shop.client.request(request.method, request.url, headers=dict(request.headers))
        assert "xkey-purged" in answer.headers


@asynccontextmanager
async def slow_replica(directory: Path, *, purger: bool) -> AsyncIterator[tuple[Front, Any]]:
    """Replica A, and B in front of which Varnish stands, and which hears the log through a proxy that can be shut."""
    own = free_port()
    environment = {"EXAMPLE_DB": str(directory / "shop.db"), "EXAMPLE_SECRET": "the same in all"}
    ports = [free_port(), free_port()]
    environment["REPLICAS"] = " ".join(f"http://127.0.0.1:{port}" for port in ports)
    told = {**environment, "VARNISH_URL": f"http://127.0.0.1:{own}"}
    async with Replicas(APP, 1, environment=told if purger else environment, ports=ports[:1]) as a:
        valkey = urlsplit(a.redis_url).port
        assert valkey is not None
        with tcp_proxy(valkey) as proxy, varnish_before(directory, ports[1:], own) as varnish:
            async with (
                Replicas(APP, 1, environment=told, redis_url=proxy.url, ports=ports[1:]) as b,
                httpx.AsyncClient() as client,
            ):
                shop = Front(varnish, [*a.urls, *b.urls], client)
                await shop.sign_in()
                yield shop, proxy


async def test_purging_before_the_replicas_leaves_varnish_stale(directory: Path) -> None:
    """The control: Varnish is purged at once, refills from a replica that has not heard of it, and keeps that."""
    async with slow_replica(directory, purger=False) as (shop, proxy):
        price, refilled = 100_000, 100_000
        for price in range(100_000, 100_005):
            await shop.get("/products/1")
            await shop.client.get(f"{shop.urls[1]}/products/1")
            proxy.black_hole("to_client")
            await shop.set_price(1, price)
            await naively_purged(shop, 1)
            refilled = (await shop.get("/products/1")).json()["list_price"]
            proxy.heal()
            if refilled < price:
                break
        assert refilled < price, "on no attempt was the replica behind"
        await heard(shop, price)
        kept = await shop.get("/products/1")
        # The replica knows better by now, and Varnish will not ask it for minutes.
        assert hit_in_varnish(kept)
        assert kept.json()["list_price"] == refilled


async def heard(shop: Front, price: int) -> None:
    """Wait until replica B answers with the price."""
    deadline = time.monotonic() + PATIENCE
    while (await shop.client.get(f"{shop.urls[1]}/products/1")).json()["list_price"] < price:
        assert time.monotonic() < deadline


async def test_the_purger_waits_for_a_replica_that_is_behind(directory: Path) -> None:
    """The same replica is as far behind: Varnish is purged once it cannot serve the old any more, and not before."""
    async with slow_replica(directory, purger=True) as (shop, proxy):
        for price in (100_000, 100_001):
            await shop.get("/products/1")
            received = (await shop.purger())["received"]
            proxy.black_hole("to_client")
            await shop.set_price(1, price)
            purging = asyncio.create_task(shop.purged(received))
            while not purging.done():
                # Refills it at any moment at which it may have been purged.
                await shop.get("/products/1")
            await purging
            assert (await shop.get("/products/1")).json()["list_price"] == price
            proxy.heal()
            await heard(shop, price)
            assert (await shop.get("/products/1")).json()["list_price"] == price
