"""An app behind a Varnish that is not there: what it would be told."""

from __future__ import annotations

from typing import Any

from fastapi_cacheinval import cached, invalidates
from fastapi_cacheinval.contrib.cdn import Varnish, path_key, varnish_headers
from fastapi_cacheinval.testing import assert_hit, assert_stale
from tests.helpers.http import Answer, Shop

VARNISH = Varnish("http://127.0.0.1:1")
# What Varnish sets on each request to the app.
VIA: dict[str, str] = {"x-varnish": "32770"}
NEVER = "no-store"
FOR_CDNS = ("xkey", "surrogate-key", "cache-tag", "surrogate-control", "cdn-cache-control")


def shop_in_front(**more: Any) -> Shop:
    """An app whose cache tells a Varnish; each route's handler counts its calls."""
    middleware = {"downstream": varnish_headers(VARNISH), **more.pop("middleware", {})}
    return Shop(middleware=middleware, **more)


def read_and_write(shop: Shop, **policy: Any) -> None:
    """`/items/{name}` is cached under `item:{name}` for 60 s, and purged by a PUT."""
    whole: dict[str, Any] = {"ttl": 60, "tags": ["item:{name}", "items"], **policy}

    @shop.app.get("/items/{name}", dependencies=[cached(**whole)])
    async def read(name: str) -> str:
        shop.count()
        return name

    @shop.app.put("/items/{name}", dependencies=[invalidates("item:{name}")])
    async def write(name: str) -> None: ...


def lifetime(answer: Answer) -> str | None:
    """What the CDN is told of keeping it, None for nothing."""
    lines = answer.fields("surrogate-control")
    assert len(lines) <= 1, answer
    return lines[0].decode() if lines else None


def keys(answer: Answer) -> set[str]:
    """The tags that the CDN is told."""
    return {key for line in answer.fields("xkey") for key in line.decode().split(" ")}


def of_items(name: str) -> set[str]:
    """All that `/items/{name}` has to be purged by."""
    return {f"item:{name}", "items", path_key(f"/items/{name}")}


def told_nothing(answer: Answer) -> bool:
    """Whether nothing that is for CDNs is in it."""
    return not any(answer.fields(name) for name in FOR_CDNS)


def forbidden(answer: Answer) -> bool:
    """Whether the CDN is told not to keep it, and no tags."""
    return lifetime(answer) == NEVER and not keys(answer)


def a_hit(answer: Answer) -> Answer:
    """The answer, which is a hit."""
    assert_hit(answer)
    return answer


def a_stale_hit(answer: Answer) -> Answer:
    """The answer, which was served stale."""
    assert_stale(answer)
    return answer
