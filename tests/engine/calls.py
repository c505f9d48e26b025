"""Many calls to Redis at once, and what has to hold of them."""

from __future__ import annotations

import asyncio
from collections import Counter

from tests.helpers.fleet import Node
from tests.helpers.http import Answer
from tests.servers import Valkey


async def mutated(node: Node, count: int) -> Counter[str]:
    """So many mutations at once, by what they say of their purges."""
    calls = [node.call(f"/items/{number}", method="PUT") for number in range(count)]
    return Counter(answer.headers["cacheinval-purge"] for answer in [await call.answer() for call in calls])


async def read(node: Node, keys: range) -> list[Answer]:
    """A read of each key, all at once."""
    calls = [node.call(f"/items/{number}") for number in keys]
    return [await call.answer() for call in calls]


def details(answers: list[Answer]) -> Counter[str | None]:
    """What the answers say beside their result."""
    return Counter(None if answer.cache is None else answer.cache.detail for answer in answers)


def connections(server: Valkey) -> int:
    """How many connections there are that are no subscriptions, but for the test's own."""
    listed = server.execute("CLIENT", "LIST", "TYPE", "normal")
    return len(listed if isinstance(listed, list) else str(listed).splitlines()) - 1


async def all_are_done(node: Node) -> None:
    """Twenty mutations and twenty purges by hand, all at once: each has its number."""
    purges = asyncio.gather(*(node.cache.invalidate(f"item:{number}") for number in range(20)))
    said = await mutated(node, 20)
    receipts = await purges
    assert said == {"done": 20}, said
    # Those that are made side by side may share a number.
    assert [receipt.tags for receipt in receipts] == [(f"item:{number}",) for number in range(20)], receipts
    assert all(receipt.term and receipt.seq for receipt in receipts), receipts


async def all_is_well(node: Node) -> None:
    """The same, and no read says a word."""
    await all_are_done(node)
    found = details(await read(node, range(20)))
    assert found == {None: 20}, found
    assert node.l2("unavailable") == 0, node.statistics
