"""Whether brokers can be talked to: at first, and again after all of them were away."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from confluent_kafka import Consumer, KafkaError, KafkaException

from fastapi_cacheinval.contrib.kafka.settings import BrokerUnreachable

__all__ = ["Reach"]

# Real seconds: of one question; from the first question to giving up; from the loss of all brokers to a new client.
_ASKING = 0.5
_AT_FIRST = 5.0
_AT_LAST = 60.0

# What waiting does not cure.
_REFUSALS = frozenset(
    {
        KafkaError._AUTHENTICATION,  # noqa: SLF001
        KafkaError._SSL,  # noqa: SLF001
        KafkaError.SASL_AUTHENTICATION_FAILED,
    }
)


class Reach:
    """What the client says of its brokers, and questions that find out; all calls are the consumer's thread's."""

    def __init__(
        self, consumer: Consumer, topics: list[str], scrubbed: Callable[[str], str], away: Callable[[str], None]
    ) -> None:
        self._consumer = consumer
        # Metadata of one topic costs less than that of all; patterns have to ask for all.
        self._topic = next((topic for topic in topics if not topic.startswith("^")), None)
        self._scrubbed = scrubbed
        self._away = away
        self._refused = self._told = False
        self._asked = 0.0
        self._since: float | None = None
        self.text = ""

    @property
    def away(self) -> bool:
        """Whether all brokers may be away."""
        return self._since is not None

    def said(self, error: KafkaError) -> str:
        """An error as it is shown."""
        return self._scrubbed(f"{error.name()}: {error.str()}")

    def failed(self, error: KafkaError) -> None:
        """The client tells an error; that all brokers are away is looked into before it is told."""
        code = error.code()
        if code == KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001
            self._since = self._since or time.monotonic()
            self.text = self.text or self.said(error)
        elif code in _REFUSALS or not self._refused:
            self._refused |= code in _REFUSALS
            self.text = self.said(error)

    def reached(self, stopping: threading.Event) -> bool:
        """Wait for a first answer, or for `stopping`; raises `BrokerUnreachable`."""
        deadline = time.monotonic() + _AT_FIRST
        while not stopping.is_set():
            if self._answers():
                self._well()
                return True
            if self._refused or time.monotonic() > deadline:
                raise self._unreachable()
            self._tell()
        return False

    def back(self) -> bool:
        """Ask, now and then, where all were away: True once one is back. Raises `BrokerUnreachable` after a minute."""
        if self._since is None or time.monotonic() - self._asked < _ASKING:
            return False
        if self._answers():
            return self._well()
        if time.monotonic() - self._since > _AT_LAST:
            raise self._unreachable()
        self._tell()
        return False

    def _well(self) -> bool:
        told = self._told
        self._since, self._refused, self._told, self.text = None, False, False, ""
        return told

    def _tell(self) -> None:
        if self._since is not None and not self._told:
            self._told = True
            self._away(self.text)

    def _answers(self) -> bool:
        try:
            if self._topic is None:
                self._consumer.list_topics(timeout=_ASKING)
            else:
                self._consumer.list_topics(self._topic, timeout=_ASKING)
        except KafkaException as error:
            # What the client knows of why is told while it polls.
            self._consumer.poll(0)
            self.text = self.text or self.said(error.args[0])
            return False
        finally:
            self._asked = time.monotonic()
        return True

    def _unreachable(self) -> BrokerUnreachable:
        return BrokerUnreachable(f"No broker can be talked to: {self.text}")
