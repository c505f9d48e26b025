"""Kafka brokers that speak the protocol on 127.0.0.1: librdkafka's mock cluster, with the faults that it knows.

It is reached through the library that comes inside the Python client, whose own API does not show it.
"""

from __future__ import annotations

import contextlib
import ctypes
import time
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import confluent_kafka
from confluent_kafka import Consumer, Producer, TopicPartition

from tests.servers import PATIENCE

_P = ctypes.c_void_p
_FUNCTIONS: dict[str, tuple[Any, list[Any]]] = {
    "rd_kafka_conf_new": (_P, []),
    "rd_kafka_conf_set": (ctypes.c_int, [_P, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t]),
    "rd_kafka_new": (_P, [ctypes.c_int, _P, ctypes.c_char_p, ctypes.c_size_t]),
    "rd_kafka_destroy": (None, [_P]),
    "rd_kafka_mock_cluster_new": (_P, [_P, ctypes.c_int]),
    "rd_kafka_mock_cluster_destroy": (None, [_P]),
    "rd_kafka_mock_cluster_bootstraps": (ctypes.c_char_p, [_P]),
    "rd_kafka_mock_topic_create": (ctypes.c_int, [_P, ctypes.c_char_p, ctypes.c_int, ctypes.c_int]),
    "rd_kafka_mock_broker_set_down": (ctypes.c_int, [_P, ctypes.c_int32]),
    "rd_kafka_mock_broker_set_up": (ctypes.c_int, [_P, ctypes.c_int32]),
    "rd_kafka_mock_group_initial_rebalance_delay_ms": (None, [_P, ctypes.c_int32]),
}


def _library() -> Any:
    packages = Path(confluent_kafka.__file__).parents[1]
    (found,) = (packages / "confluent_kafka.libs").glob("librdkafka*")
    library = ctypes.CDLL(str(found))
    for name, (result, arguments) in _FUNCTIONS.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


class Quiet:
    """A log that keeps nothing."""

    def log(self, *values: object) -> None:
        """Nothing of it."""


class Kafka:
    """A cluster of one broker with one topic of two partitions; make one with `kafka()`."""

    topic = "changes"

    def __init__(self) -> None:
        self._library = _library()
        said = ctypes.create_string_buffer(512)
        configuration = self._library.rd_kafka_conf_new()
        self._library.rd_kafka_conf_set(configuration, b"log_level", b"0", said, len(said))
        self._client = self._library.rd_kafka_new(0, configuration, said, len(said))
        assert self._client, said.value
        self._cluster = self._library.rd_kafka_mock_cluster_new(self._client, 1)
        self._library.rd_kafka_mock_group_initial_rebalance_delay_ms(self._cluster, 20)
        self.address: str = self._library.rd_kafka_mock_cluster_bootstraps(self._cluster).decode()
        self.create(self.topic)
        self._producer: Any = None

    @property
    def port(self) -> int:
        """The broker's."""
        return int(self.address.rpartition(":")[2])

    def config(self, group: str = "purges", **more: Any) -> dict[str, Any]:
        """A consumer's configuration, with a session so short that a member that is gone is missed soon."""
        return {
            "bootstrap.servers": self.address,
            "group.id": group,
            "session.timeout.ms": 1000,
            "heartbeat.interval.ms": 200,
            "auto.offset.reset": "earliest",
            **{name.replace("_", "."): value for name, value in more.items()},
        }

    def create(self, topic: str, partitions: int = 2) -> None:
        """Make a topic."""
        assert not self._library.rd_kafka_mock_topic_create(self._cluster, topic.encode(), partitions, 1)

    def away(self) -> None:
        """Close all connections and take no more."""
        self._library.rd_kafka_mock_broker_set_down(self._cluster, 1)

    def back(self) -> None:
        """Take connections again, with all that was stored."""
        self._library.rd_kafka_mock_broker_set_up(self._cluster, 1)

    def send(
        self,
        *values: bytes | str | None,
        partition: int = 0,
        topic: str = topic,
        key: bytes | None = None,
        headers: Mapping[str, bytes] | None = None,
        compression: str = "none",
    ) -> None:
        """Write records, and wait until the broker has them."""
        if self._producer is None:
            self._producer = Producer(
                {
                    "bootstrap.servers": self.address,
                    "message.max.bytes": 20_000_000,
                    "linger.ms": 0,
                    # What is all one letter is short on the broker, which keeps five megabytes of a partition.
                    "compression.type": compression,
                    "logger": Quiet(),
                    "reconnect.backoff.max.ms": 200,
                }
            )
        refused: list[Any] = []
        for value in values:
            self._producer.produce(
                topic,
                value,
                key,
                partition=partition,
                headers=list((headers or {}).items()),
                on_delivery=lambda error, _: refused.append(error) if error else None,
            )
        assert not self._producer.flush(PATIENCE)
        assert not refused, refused

    def committed(self, group: str = "purges", topic: str = topic) -> tuple[int | None, int | None]:
        """The group's offset in both partitions."""
        consumer = Consumer({"bootstrap.servers": self.address, "group.id": group, "logger": Quiet()})
        try:
            found = consumer.committed([TopicPartition(topic, number) for number in (0, 1)], timeout=PATIENCE)
        finally:
            consumer.close()
        first, second = (each.offset if each.offset >= 0 else None for each in found)
        return first, second

    def wait_for_offset(self, offset: int, group: str = "purges", topic: str = topic) -> None:
        """Wait until the first partition's offset is committed."""
        deadline = time.monotonic() + PATIENCE
        while (found := self.committed(group, topic)[0]) != offset:
            assert time.monotonic() < deadline, f"{found} is committed, not {offset}"
            time.sleep(0.02)

    def close(self) -> None:
        """End it."""
        self._producer = None
        self._library.rd_kafka_mock_cluster_destroy(self._cluster)
        self._library.rd_kafka_destroy(self._client)


@contextlib.contextmanager
def kafka() -> Generator[Kafka]:
    """A cluster for a test."""
    cluster = Kafka()
    try:
        yield cluster
    finally:
        cluster.close()
