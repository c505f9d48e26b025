"""The consumer's configuration: what is needed, what is refused, what is set; and texts without its secrets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from fastapi_cacheinval import CacheinvalError, ConfigurationError

__all__ = [
    "BrokerUnreachable",
    "KafkaTrouble",
    "Reset",
    "checked_config",
    "checked_topics",
    "reset_of",
    "without_secrets",
]

Reset = Literal["earliest", "latest"]

_RESETS: dict[str, Reset] = {
    "smallest": "earliest",
    "earliest": "earliest",
    "beginning": "earliest",
    "largest": "latest",
    "latest": "latest",
    "end": "latest",
}
# Offsets are committed when a purge has its number, and by nothing else.
_ON_ITS_OWN = ("enable.auto.commit", "enable.auto.offset.store")
_OURS = ("error_cb", "on_commit")
_DEFAULTS: dict[str, Any] = {
    # A rebalance takes from a member only what another gets.
    "partition.assignment.strategy": "cooperative-sticky",
    # What waits in the client's own queue, bounded in KiB.
    "queued.max.messages.kbytes": 16_384,
    # A broker that is back, and a topic that is new, are not left waiting for minutes.
    "reconnect.backoff.max.ms": 2_000,
    "topic.metadata.refresh.interval.ms": 30_000,
}
_SECRET = re.compile(r"password|secret|token|jaas|\.pem$|oauthbearer\.config|credential", re.IGNORECASE)


class BrokerUnreachable(CacheinvalError):
    """No broker can be talked to: it is away, its certificate is not trusted, or it does not take the credentials."""


class KafkaTrouble(CacheinvalError):
    """What the client says is wrong, in words that have no secret."""


def checked_topics(topics: object) -> list[str]:
    """The topics as a list; raises `ConfigurationError` where they are none."""
    found: list[Any] = [topics] if isinstance(topics, str) else list(topics) if _many(topics) else []  # type: ignore[call-overload]
    if not found or not all(isinstance(topic, str) and topic for topic in found):
        raise ConfigurationError(f"KafkaSource takes the topics as a list of names, not {topics!r}.")
    return found


def _many(topics: object) -> bool:
    return isinstance(topics, list | tuple | set | frozenset)


def reset_of(config: Mapping[str, Any]) -> Reset:
    """Where a partition without an offset is begun; raises `ConfigurationError` for a word that is not known."""
    given = str(config.get("auto.offset.reset", "latest")).lower()
    if given not in _RESETS:
        raise ConfigurationError(
            f"auto.offset.reset is earliest or latest here, not {given!r}: where offsets are gone, what they stood "
            "for is purged, and reading goes on."
        )
    return _RESETS[given]


def checked_config(config: object) -> dict[str, Any]:
    """What a consumer is made with; raises `ConfigurationError` for what contradicts or is missing."""
    if not isinstance(config, Mapping):
        raise ConfigurationError(f"KafkaSource takes the consumer's configuration as a mapping, not {type(config)}.")
    given: dict[str, Any] = dict(config)  # pyright: ignore[reportUnknownArgumentType]
    for name in given:
        if not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError("The names in the consumer's configuration are str.")
    for name in ("bootstrap.servers", "group.id"):
        if not given.get(name):
            raise ConfigurationError(f"KafkaSource needs {name!r} in its configuration.")
    for name in _ON_ITS_OWN:
        if str(given.get(name, False)).lower() != "false":
            raise ConfigurationError(
                f"{name} cannot be on: an offset is committed when the purge has its number, or a crash loses purges."
            )
    for name in _OURS:
        if name in given:
            raise ConfigurationError(f"{name} is KafkaSource's own: see the source's state, and its log.")
    if "default.topic.config" in given:
        raise ConfigurationError("Write what is in default.topic.config into the configuration itself.")
    reset_of(given)
    defaults = dict(_DEFAULTS)
    if str(given.get("group.protocol", "classic")).lower() != "classic":
        # There the broker assigns.
        del defaults["partition.assignment.strategy"]
    return {
        **defaults,
        **given,
        # A missing offset is told, so that what was lost is purged, and is not passed over in silence.
        "auto.offset.reset": "error",
        **dict.fromkeys(_ON_ITS_OWN, False),
    }


def without_secrets(text: str, config: Mapping[str, Any]) -> str:
    """A client's text without the values of settings that are secret."""
    for name, value in config.items():
        if isinstance(value, str) and value and _SECRET.search(name):
            text = text.replace(value, "***")
    return text
