"""What an invalidation gives back."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Receipt"]


@dataclass(frozen=True, slots=True)
class Receipt:
    """One purge as it stands in the log.

    `term` and `seq` are its number; `tags` are in normal form, `paths` the target paths it names,
    `everything` is True for a `clear()`. `replicas` and `seconds` are set where the call waited for
    every replica: how many applied it, and how long that took.
    """

    term: int
    seq: int
    tags: tuple[str, ...]
    soft: bool
    paths: tuple[str, ...] = ()
    everything: bool = False
    replicas: int | None = None
    seconds: float | None = None
