"""Messages in hand: what is to become of each, and in which order they are looked at."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from fastapi_cacheinval.contrib.sqs.messages import Message
from fastapi_cacheinval.sources import Outcome

__all__ = ["Batch", "Held", "Verdict", "backoff", "extension"]

# SQS hides a message for twelve hours at the most, counted from when it was handed out.
_LONGEST_HOLD = 12 * 3600
# The reply was under way, and clocks differ.
_MARGIN = 60
_LONGEST_BACKOFF = 900


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a message, and why. One that is not over is hidden for so many seconds and handed out again."""

    outcome: Outcome
    hidden: int = 0
    why: Exception | None = None


@dataclass(slots=True)
class Held:
    """A message that was handed out to us, under the receipt that deletes and hides it; None while it is worked on."""

    message: Message
    receipt: str
    verdict: Verdict | None = None


class Batch:
    """What one poll has brought."""

    def __init__(self, received: Iterable[Mapping[str, Any]], *, ordered: bool) -> None:
        self.held = [Held(Message.of(one), str(one.get("ReceiptHandle", ""))) for one in received]
        self._ordered = ordered

    def lines(self) -> list[list[Held]]:
        """What is worked on in order: the messages of one group where the queue keeps an order, else each alone."""
        lines: dict[str, list[Held]] = {}
        for held in self.held:
            group = held.message.attributes.get("MessageGroupId") if self._ordered else None
            lines.setdefault(held.receipt if group is None else f"group {group}", []).append(held)
        return list(lines.values())

    def to_delete(self) -> list[Held]:
        """What is to be deleted."""
        return [held for held in self.held if held.verdict is not None and held.verdict.outcome.over]

    def to_hide(self) -> dict[str, int]:
        """What is to be handed out again, and after how many seconds: at once what nothing came of."""
        return {
            held.receipt: 0 if held.verdict is None else held.verdict.hidden
            for held in self.held
            if held.verdict is None or not held.verdict.outcome.over
        }


def backoff(receive_count: int) -> int:
    """The seconds after which a message is handed out again that something failed for: 1, doubled up to 900."""
    return min(1 << min(max(receive_count, 1) - 1, 30), _LONGEST_BACKOFF)


def extension(held_for: float, visibility_timeout: int) -> int:
    """For how many seconds a message is to be hidden that has been held for so long; 0 where SQS allows no more."""
    left = _LONGEST_HOLD - _MARGIN - held_for
    return visibility_timeout if left >= visibility_timeout else max(int(left), 0)
