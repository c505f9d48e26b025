"""The `Age` of a fresh hit, made once for each number of seconds: many hits of a moment have few different ones."""

from __future__ import annotations

from typing import Final

__all__ = ["AGES"]

_MOST: Final = 4096


class _Ages(dict[int, tuple[bytes, bytes]]):
    """What is not there is made, so that looking it up is no call on the path of a hit."""

    def __missing__(self, seconds: int) -> tuple[bytes, bytes]:
        if len(self) >= _MOST:
            self.clear()
        made = self[seconds] = (b"age", b"%d" % seconds)
        return made


AGES: Final = _Ages()
"""`Age` by a response's age in whole seconds."""
