"""Reading what CDNs answer: how long to wait, and what their JSON says. Whatever comes, nothing raises."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Iterable
from email.utils import parsedate_to_datetime
from typing import Any, cast

from fastapi_cacheinval.contrib.cdn.requests import Answer

__all__ = ["about_access", "as_text", "json_object", "seconds_to", "told_to_wait"]

_ACCESS = re.compile(
    r"authenticat|authori[sz]|credential|permission|forbidden|denied|api[ _-]?token|api[ _-]?key|signature",
    re.IGNORECASE,
)


def told_to_wait(answer: Answer) -> float | None:
    """The seconds that `Retry-After` names, by number or by date; None where it names none."""
    text = answer.headers.get("retry-after", "").strip()
    try:
        seconds = float(text)
    except ValueError:
        then = _epoch(text)
        return None if then is None else seconds_to(answer, then)
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def seconds_to(answer: Answer, epoch: float) -> float | None:
    """From the answer's `Date`, by the server's own clock, to a time that it names; without one, from now."""
    if not math.isfinite(epoch):
        return None
    sent = _epoch(answer.headers.get("date", ""))
    return max(0.0, epoch - (time.time() if sent is None else sent))


def _epoch(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp()
    except (TypeError, ValueError, IndexError, OverflowError):
        return None


def json_object(answer: Answer) -> dict[str, Any] | None:
    """The JSON object that the answer is; None where it is none, or longer than what was read of it."""
    if not answer.whole:
        return None
    try:
        found: Any = json.loads(answer.body)
    except (ValueError, RecursionError):
        return None
    return cast("dict[str, Any]", found) if isinstance(found, dict) else None


def as_text(answer: Answer) -> str:
    """What it says, whatever it is."""
    return answer.body.decode("utf-8", "replace")


def about_access(text: str, keys: Iterable[str]) -> bool:
    """Whether an error's text is about who asks, and not about the keys, which it may repeat."""
    named = "\n".join(keys).lower()
    return any(word.lower() not in named for word in _ACCESS.findall(text))
