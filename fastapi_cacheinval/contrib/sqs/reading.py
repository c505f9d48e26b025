"""What a message asks to purge, and what led to it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, cast

from fastapi_cacheinval.contrib.sqs.messages import Message, PoisonMessage
from fastapi_cacheinval.sources import Change
from fastapi_cacheinval.sources.changes import causes_in, read_by

__all__ = ["TagsOf", "causes_of", "read"]

TagsOf = Callable[[Message], Iterable[str] | Change | None]

_ROOT = re.compile(r"1-([0-9a-f]{8})-([0-9a-f]{24})")
_PARENT = re.compile(r"[0-9a-f]{16}")


def read(message: Message, tags_of: TagsOf | None, *, soft: bool) -> Change:
    """What a message asks for; raises `PoisonMessage`, whatever the message holds and whatever `tags_of` raises.

    An `OSError` that `tags_of` raises is not about the message, and comes out as it is.
    """
    if message.envelopes[-1:] == ("confirmation",):
        raise PoisonMessage("SNS asks to confirm the subscription of this queue: visit its SubscribeURL once")
    causes = causes_of(message)
    if tags_of is None:
        return _read_json(message.json(), soft=soft, causes=causes)
    return read_by(tags_of, message, soft=soft, causes=causes)


def _read_json(content: object, *, soft: bool, causes: Iterable[Mapping[str, str]]) -> Change:
    if not isinstance(content, Mapping):
        raise PoisonMessage(f"its body is a JSON {type(content).__name__}, not an object with tags")
    fields = cast("Mapping[str, Any]", content)
    everything = _flag(fields, "everything", default=False)
    tags: object = fields.get("tags", [] if everything else None)
    if not isinstance(tags, list):
        raise PoisonMessage('its body names no list of "tags", and does not say "everything": true')
    change = Change.of(cast("list[object]", tags), soft=_flag(fields, "soft", default=soft), causes=causes)
    return replace(change, everything=everything)


def _flag(fields: Mapping[str, Any], name: str, *, default: bool) -> bool:
    value: object = fields.get(name, default)
    if not isinstance(value, bool):
        raise PoisonMessage(f'"{name}" is true or false, not {type(value).__name__}')
    return value


def causes_of(message: Message) -> tuple[Mapping[str, str], ...]:
    """The W3C Trace Context that a message carries in its attributes, else that of its X-Ray header."""
    parent = _of_xray(message.attributes.get("AWSTraceHeader", ""))
    texts = ((name, value) for name, value in message.message_attributes.items() if isinstance(value, str))
    return causes_in(texts) or (({"traceparent": parent},) if parent else ())


def _of_xray(header: str) -> str:
    """The `traceparent` of an X-Ray header, whose ids are the same; empty where it is none."""
    pairs = [part.strip().partition("=") for part in header.split(";")]
    fields = {name: value for name, _, value in pairs}
    root, parent = _ROOT.fullmatch(fields.get("Root", "")), fields.get("Parent", "")
    if root is None or _PARENT.fullmatch(parent) is None:
        return ""
    return f"00-{root[1]}{root[2]}-{parent}-{'01' if fields.get('Sampled') == '1' else '00'}"
