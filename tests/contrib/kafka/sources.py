"""Replicas of which the first has a source, and what is waited for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi_cacheinval import HTTPCache, Receipt, SourceState
from fastapi_cacheinval.contrib.kafka import KafkaSource, Record
from fastapi_cacheinval.contrib.kafka.consuming import Consuming
from tests.contrib.kafka.broker import Kafka
from tests.helpers.fleet import Node, eventually, fleet


def named(record: Record) -> list[str]:
    """The value is the tag."""
    return [(record.value or b"").decode()]


@asynccontextmanager
async def consumed(
    broker: Kafka,
    cache: HTTPCache | None = None,
    *,
    config: dict[str, Any] | None = None,
    topics: list[str] | None = None,
    **options: Any,
) -> AsyncIterator[KafkaSource]:
    """A source that is in its group, over a cache of this process unless one is given."""
    options = {"tags": named, **options}
    source = KafkaSource(cache or HTTPCache(), config or broker.config(), topics or [broker.topic], **options)
    async with source.cache, source:
        if topics is None:
            await joined(source)
        yield source


async def joined(source: KafkaSource) -> None:
    """Wait until it holds partitions or is known to get none."""
    await eventually(lambda: source.state().connected and source.state().lag is not None, "a place in the group")


async def done(source: KafkaSource, count: int) -> SourceState:
    """Wait until so many records were seen through."""
    await eventually(lambda: source.state().done >= count, f"{count} record(s) done: {source.state()}")
    return source.state()


async def committed(broker: Kafka, offset: int, group: str = "purges") -> None:
    """Wait until the first partition's offset is committed."""
    await asyncio.to_thread(broker.wait_for_offset, offset, group)


@asynccontextmanager
async def replicas(url: str, broker: Kafka, **options: Any) -> AsyncIterator[tuple[Node, Node, KafkaSource]]:
    """Two replicas over Redis; the first has a source of its own, attached."""
    given = {"tags": named, "config": broker.config(), **options}
    config = given.pop("config")
    fleet_options = given.pop("fleet", {})
    sources: list[KafkaSource] = []

    def attach(node: Node) -> None:
        if node.number == 0:
            sources.append(KafkaSource(node.cache, config, [broker.topic], **given))
            node.cache.attach(sources[0])

    async with fleet(url, 2, routes=attach, **fleet_options) as (a, b):
        await joined(sources[0])
        yield a, b, sources[0]


def consuming(source: KafkaSource) -> Consuming:
    """Its consumer's thread."""
    assert source._handle is not None
    return source._handle.consuming


def heard(cache: HTTPCache) -> list[Receipt]:
    """The receipts of a cache's purges from now on."""
    receipts: list[Receipt] = []
    cache.add_observer(receipts.append)
    return receipts
