"""What one request to one replica was given."""

from __future__ import annotations

from tests.helpers.mutations import Answer, Call


class Reading:
    """One GET: when it came and was answered, in steps, and what with."""

    def __init__(self, arrived: int) -> None:
        self.arrived = arrived
        self.answered: int | None = None
        self.answer: Answer | None = None
        self.call: Call | None = None

    def __repr__(self) -> str:
        return f"<Reading {self.value} {self.how}>"

    @property
    def value(self) -> int | None:
        """What the client was given."""
        return self.answer.json() if self.answer is not None and self.answer.status_code == 200 else None

    @property
    def how(self) -> str:
        """`hit`, `stale`, `collapsed`, `superseded`, `forwarded` or `failed`."""
        if self.answer is None or self.answer.status_code != 200:
            return "failed"
        status = self.answer.headers["cache-status"]
        for word in ("collapsed", "superseded"):
            if word in status:
                return word
        if "ttl=-" in status:
            return "stale"
        return "hit" if "; hit" in status else "forwarded"

    @property
    def forwarded(self) -> bool:
        """Whether its own forward answered it."""
        return self.how in ("forwarded", "superseded")
