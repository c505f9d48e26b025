import asyncio
import tempfile
from pathlib import Path
from typing import Any

import httpx

from fastapi_cacheinval.testing import Replicas


def reading_own_writes(**options: Any) -> httpx.AsyncClient:
    """A client that shows each replica how far its own writes have to be read."""
    token: dict[str, str] = {}

    async def keep(response: httpx.Response) -> None:
        if given := response.headers.get("Cacheinval-Token"):
            token["Cacheinval-Token"] = given

    async def show(request: httpx.Request) -> None:
        request.headers.update(token)

    return httpx.AsyncClient(event_hooks={"request": [show], "response": [keep]}, **options)


async def main() -> None:
    with tempfile.TemporaryDirectory() as prices:
        Path(prices, "42").write_text("30")
        async with (
            Replicas("prices:app", 2, environment={"PRICES": prices}) as replicas,
            reading_own_writes(headers={"Host": "shop.example"}) as client,
        ):
            one, other = (f"{url}/prices/42" for url in replicas.urls)
            print("before:", (await client.get(other)).json())
            await client.put(one, params={"price": 20})
            print("elsewhere, at once:", (await client.get(other)).json())


if __name__ == "__main__":
    asyncio.run(main())
