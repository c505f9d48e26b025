"""What a process forgets that was forked from one whose caches run: the loops, the links and the request at hand.

They are the parent's, and go on there. Nothing of them is closed here, nor may it be collected: a connection's end
takes its file out of the selector, which both processes share.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol

__all__ = ["Forgets", "forget_after_fork"]


class Forgets(Protocol):
    """A part of a cache that has something of its process."""

    def forked(self) -> object:
        """Forget what is the parent's, in the child; what may not be collected."""
        ...


_parts: weakref.WeakSet[Forgets] = weakref.WeakSet()
_kept: list[object] = []


def forget_after_fork(part: Forgets) -> None:
    """Have a part told in each process that is forked from this one, as long as it lives."""
    _parts.add(part)


def _in_child() -> None:
    _kept.extend(part.forked() for part in tuple(_parts))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
