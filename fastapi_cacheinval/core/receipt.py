"""What an invalidation gives back."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi_cacheinval.core.replica import LogEntry
from fastapi_cacheinval.core.tags import ALL, path_tag, reserved_in, unreserved_in

__all__ = ["Receipt", "receipt_of"]

_PATH = path_tag("")


@dataclass(frozen=True, slots=True)
class Receipt:
    """One purge as it stands in the log.

    `term` and `seq` are its number; `tags` are in normal form, `paths` the target paths it names,
    `everything` is True for a `clear()`. `replicas` and `seconds` are set where the call waited for
    every replica: how many applied it, and how long that took. `reason` is "new-term" where the log
    had just begun anew: the call waited until leases of the term before had ended.
    """

    term: int
    seq: int
    tags: tuple[str, ...]
    soft: bool
    paths: tuple[str, ...] = ()
    everything: bool = False
    replicas: int | None = None
    seconds: float | None = None
    reason: str | None = None


def receipt_of(line: LogEntry) -> Receipt:
    """The receipt of a purge that stands in the log."""
    reserved = reserved_in(line.tags)
    return Receipt(
        term=line.term.number,
        seq=line.seq,
        tags=unreserved_in(line.tags) if reserved else line.tags,
        soft=line.soft,
        paths=tuple([tag[len(_PATH) :] for tag in reserved if tag.startswith(_PATH)]),
        everything=ALL in reserved,
    )
