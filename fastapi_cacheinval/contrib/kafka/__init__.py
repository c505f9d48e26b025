"""Records of Kafka topics, Debezium's change events among them, become purges. Needs the extra `kafka`."""

from __future__ import annotations

try:
    import confluent_kafka as _client
except ImportError as error:
    raise ImportError(
        "fastapi_cacheinval.contrib.kafka needs confluent-kafka: pip install 'fastapi-cacheinval[kafka]'"
    ) from error

from fastapi_cacheinval.contrib.kafka.debezium import debezium
from fastapi_cacheinval.contrib.kafka.record import EVERYTHING, PoisonRecord, Record
from fastapi_cacheinval.contrib.kafka.settings import BrokerUnreachable
from fastapi_cacheinval.contrib.kafka.source import KafkaSource

__all__ = ["EVERYTHING", "BrokerUnreachable", "KafkaSource", "PoisonRecord", "Record", "debezium"]

del _client
