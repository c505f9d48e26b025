"""A message of a queue, out of the envelopes that it came in."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast

from fastapi_cacheinval.sources import UnreadableEvent

__all__ = ["Envelope", "Message", "PoisonMessage", "json_of"]

Envelope = Literal["confirmation", "eventbridge", "sns"]
"""What wraps a message: a notification of SNS, an event of EventBridge, or SNS asking to confirm a subscription."""

# EventBridge in SNS is two; what is nested deeper is somebody's own.
_MOST_ENVELOPES = 4
_CONFIRMATIONS = ("SubscriptionConfirmation", "UnsubscribeConfirmation")


PoisonMessage = UnreadableEvent
"""A message that no purge can be read from; its text says why, and nothing of what the message holds."""


def json_of(text: str) -> Any:
    """What a text says as JSON; raises `PoisonMessage` for any other."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PoisonMessage(f"its body is no JSON that can be read ({type(error).__name__})") from None


@dataclass(frozen=True, slots=True, repr=False)
class Message:
    """A message as its producer wrote it.

    `body` is the text inside all envelopes, of an EventBridge event its `detail` as JSON; `envelopes` names them from
    the outside in. `attributes` are SQS's own (`SentTimestamp`, `MessageGroupId`), `message_attributes` the
    producer's, of SQS and of SNS; binary ones are bytes. `topic` and `subject` are SNS's, `source`, `detail_type` and
    `resources` EventBridge's; empty where there is no such envelope.
    """

    id: str
    body: str
    attributes: Mapping[str, str] = field(default_factory=dict[str, str])
    message_attributes: Mapping[str, str | bytes] = field(default_factory=dict[str, "str | bytes"])
    envelopes: tuple[Envelope, ...] = ()
    topic: str = ""
    subject: str = ""
    source: str = ""
    detail_type: str = ""
    resources: tuple[str, ...] = ()

    def __repr__(self) -> str:
        within = f" in {' in '.join(reversed(self.envelopes))}" if self.envelopes else ""
        return f"<Message {self.id}{within}, {len(self.body)} characters>"

    def json(self) -> Any:
        """The body as JSON; raises `PoisonMessage` where it is none."""
        return json_of(self.body)

    @property
    def receive_count(self) -> int:
        """How often it has been handed out, this time included."""
        count = self.attributes.get("ApproximateReceiveCount", "")
        return int(count) if count.isascii() and count.isdigit() and len(count) < 10 else 1

    @classmethod
    def of(cls, received: Mapping[str, Any]) -> Message:
        """A message as `ReceiveMessage` gives it, out of its envelopes; whatever its body is, this does not raise."""
        message = cls(
            id=str(received.get("MessageId", "")),
            body=str(received.get("Body", "")),
            attributes={str(name): str(value) for name, value in _mapping(received.get("Attributes")).items()},
            message_attributes=_attributes(received.get("MessageAttributes"), ("StringValue", "BinaryValue")),
        )
        for _ in range(_MOST_ENVELOPES):
            inner = _unwrapped(message)
            if inner is None:
                break
            message = inner
        return message


def _mapping(value: object) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}


def _text(content: Mapping[str, Any], name: str) -> str:
    value = content.get(name)
    return value if isinstance(value, str) else ""


def _attributes(given: object, values: tuple[str, ...]) -> dict[str, str | bytes]:
    """Attributes of SQS or SNS by name: each is a record of its type and its value."""
    found: dict[str, str | bytes] = {}
    for name, record in _mapping(given).items():
        fields = _mapping(record)
        value = next((fields[key] for key in values if key in fields), None)
        if isinstance(value, str) and _text(fields, "Type").startswith("Binary"):
            try:
                # As SNS writes it into its JSON.
                value = base64.b64decode(value, validate=True)
            except (ValueError, binascii.Error):
                continue
        if isinstance(value, str | bytes):
            found[name] = value
    return found


def _unwrapped(message: Message) -> Message | None:
    """The message in the outermost envelope that is left; None where there is none."""
    if message.envelopes[-1:] == ("confirmation",) or message.body.lstrip()[:1] != "{":
        return None
    try:
        content = _mapping(json_of(message.body))
        return _from_sns(message, content) or _from_eventbridge(message, content)
    except (PoisonMessage, RecursionError):
        return None


def _from_sns(message: Message, content: Mapping[str, Any]) -> Message | None:
    kind, topic, inner = (_text(content, name) for name in ("Type", "TopicArn", "Message"))
    if not topic or not isinstance(content.get("Message"), str):
        return None
    if kind in _CONFIRMATIONS and _text(content, "Token"):
        return replace(message, envelopes=(*message.envelopes, "confirmation"), topic=topic)
    if kind != "Notification":
        return None
    attributes = _attributes(content.get("MessageAttributes"), ("Value",))
    return replace(
        message,
        body=inner,
        message_attributes={**message.message_attributes, **attributes},
        envelopes=(*message.envelopes, "sns"),
        topic=topic,
        subject=_text(content, "Subject"),
    )


def _from_eventbridge(message: Message, content: Mapping[str, Any]) -> Message | None:
    source, detail_type = _text(content, "source"), _text(content, "detail-type")
    if not source or not detail_type or "detail" not in content:
        return None
    resources: object = content.get("resources")
    named = cast("list[object]", resources) if isinstance(resources, list) else []
    return replace(
        message,
        body=json.dumps(content["detail"], ensure_ascii=False, separators=(",", ":")),
        envelopes=(*message.envelopes, "eventbridge"),
        source=source,
        detail_type=detail_type,
        resources=tuple(name for name in named if isinstance(name, str)),
    )
