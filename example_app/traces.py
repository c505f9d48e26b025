"""Three stories as spans, from three replicas: ``python -m example_app.traces``.

A hit, a stale hit with its refresh, and a price change that all replicas hear of. Each replica prints its spans to its
console; this program prints those of a story below its name, and leaves out what the framework says of its own steps.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import tempfile
import time
from pathlib import Path

import httpx

from example_app.replicas import NAMES
from example_app.seed import USERS
from fastapi_cacheinval.testing import Replicas
from fastapi_cacheinval.testing.servers.ports import free_port

CAR, BRANDS = "/products/43", "/brands"
PATIENCE = 20.0
_SPAN = re.compile(r"^[0-9a-f]{8}/[0-9a-f]{8} ")
_STEP = re.compile(r" fastapi\.\w+ ")


class Traces:
    """The replicas of a showroom, and what each has printed up to the last story."""

    def __init__(self, replicas: Replicas, count: int) -> None:
        self._replicas = replicas
        self._told = [0] * count
        self.client = httpx.AsyncClient(trust_env=False)

    async def get(self, replica: int, path: str) -> str:
        """Ask one replica; give its Cache-Status."""
        answer = (await self.client.get(self._replicas.urls[replica] + path)).raise_for_status()
        return str(answer.headers["cache-status"])

    async def get_until(self, replica: int, path: str, sign: str) -> None:
        """Ask one replica until its Cache-Status has a sign."""
        give_up = time.monotonic() + PATIENCE
        while sign not in await self.get(replica, path):
            if time.monotonic() > give_up:
                raise TimeoutError(f"no {sign} of {path}")
            await asyncio.sleep(0.1)

    async def discount(self, replica: int) -> None:
        """Put the car on offer."""
        url, (password, _) = self._replicas.urls[replica], USERS["admin"]
        signed = await self.client.post(f"{url}/token", data={"username": "admin", "password": password})
        headers = {"authorization": f"Bearer {signed.json()['access_token']}"}
        await self.forget()
        changed = await self.client.post(f"{url}{CAR}/discount", json={"percent": 10}, headers=headers)
        changed.raise_for_status()

    def _news(self) -> list[str]:
        return [
            f"{NAMES[number]}  {line.rstrip()}"
            for number, told in enumerate(self._told)
            for line in self._replicas.output(number).splitlines()[told:]
            if _SPAN.match(line) and not _STEP.search(line)
        ]

    async def forget(self) -> None:
        """Leave out what has been printed up to now."""
        self._told = [len(self._replicas.output(number).splitlines()) for number in range(len(self._told))]

    async def wait(self, *signs: str) -> None:
        """Until a line of this story has all of the signs."""
        give_up = time.monotonic() + PATIENCE
        while not any(all(sign in line for sign in signs) for line in self._news()):
            if time.monotonic() > give_up:
                raise TimeoutError(f"no line with {signs} in {self._news()}")
            await asyncio.sleep(0.05)

    async def tell(self, title: str, *signs: str) -> None:
        """Print a story once each of its signs is in what the replicas have printed."""
        give_up = time.monotonic() + PATIENCE
        while not all(any(sign in line for line in self._news()) for sign in signs):
            if time.monotonic() > give_up:
                raise TimeoutError(f"{title}: not all of {signs} in {self._news()}")
            await asyncio.sleep(0.05)
        print(f"{title}\n\n" + "\n".join(self._news()) + "\n", flush=True)
        await self.forget()


async def main() -> None:
    """Play the three stories."""
    ports = [free_port() for _ in range(3)]
    with tempfile.TemporaryDirectory() as scratch:
        environment = {
            "EXAMPLE_DB": str(Path(scratch) / "showroom.db"),
            "EXAMPLE_SECRET": secrets.token_hex(16),
            "OTEL_TRACES_EXPORTER": "console",
            "REPLICAS": " ".join(f"http://127.0.0.1:{port}" for port in ports),
        }
        async with Replicas("example_app.main:app", 3, environment=environment, ports=ports) as replicas:
            traces = Traces(replicas, 3)
            async with traces.client:
                await traces.get(0, CAR)
                await traces.get(0, CAR)
                await traces.tell("A miss and a hit on A", "cacheinval.result=hit", "cacheinval.l2.set")
                await traces.get(2, BRANDS)
                await traces.tell("A page that is good for a second", "cacheinval.l2.set")
                await asyncio.sleep(1.1)
                await traces.get(2, BRANDS)
                await traces.tell("A stale hit on C and its refresh", "cacheinval.refresh", "cacheinval.l2.set")
                await traces.discount(0)
                await traces.get_until(1, CAR, "stored")
                # Until B has shared it, C would wait for it, and say so.
                await traces.wait("B  ", "cacheinval.l2.set")
                await traces.get_until(2, CAR, "hit")
                await traces.tell("A discount on A", "B  ", "C  ", "cacheinval.l2.set", "cacheinval.tier=l2")


if __name__ == "__main__":
    asyncio.run(main())
