import tempfile
from pathlib import Path

import httpx

from fastapi_cacheinval.testing import Replicas, assert_hit

SHOP = {"Host": "shop.example"}  # one name for all replicas, as behind a load balancer: the host is part of the key


async def test_a_price_that_is_changed_on_one_replica_is_seen_on_the_other() -> None:
    with tempfile.TemporaryDirectory() as prices:
        Path(prices, "42").write_text("30")
        async with (
            Replicas("prices:app", 2, environment={"PRICES": prices}) as replicas,
            httpx.AsyncClient(headers=SHOP) as client,
        ):
            one, other = (f"{url}/prices/42" for url in replicas.urls)
            await client.get(one)
            assert_hit(await client.get(other))

            changed = await client.put(other, params={"price": 20})
            token = {"Cacheinval-Token": changed.headers["Cacheinval-Token"]}
            assert (await client.get(one, headers=token)).json() == 20


async def test_nothing_fails_while_redis_is_away() -> None:
    with tempfile.TemporaryDirectory() as prices:
        Path(prices, "42").write_text("30")
        async with (
            Replicas("prices:app", 2, environment={"PRICES": prices}) as replicas,
            httpx.AsyncClient(headers=SHOP) as client,
        ):
            await replicas.kill_redis()
            changed = await client.put(f"{replicas.urls[0]}/prices/42", params={"price": 20})
            assert changed.headers["Cacheinval-Purge"] == "queued"
            assert (await client.get(f"{replicas.urls[0]}/prices/42")).json() == 20
            await replicas.restart_redis()
