"""Pauses between attempts that fail, each twice as long as the last."""

from __future__ import annotations

__all__ = ["DoublingPause"]


class DoublingPause:
    """From `first` to `longest` seconds, and from `first` again after `reset`. It waits for nothing itself."""

    __slots__ = ("_first", "_longest", "_next")

    def __init__(self, first: float, longest: float) -> None:
        self._first = first
        self._longest = longest
        self._next = first

    def take(self) -> float:
        """The pause after one more failure, in seconds."""
        pause = self._next
        self._next = min(pause * 2, self._longest)
        return pause

    def reset(self) -> None:
        """An attempt has gone well."""
        self._next = self._first
