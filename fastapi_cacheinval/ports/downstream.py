"""What a cache in front of this one, which is purged by tags, is told beside what browsers are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from fastapi_cacheinval.core.downstream import KeepFor

__all__ = ["Downstream", "Field"]

Field = tuple[bytes, bytes]


@runtime_checkable
class Downstream(Protocol):
    """How one CDN is told what it may keep, and by which tags it is to give it up.

    It is asked about every answer of a cached route on its way out. Names of fields are lower-case. No method may raise
    or wait; each is called on the path of a hit.
    """

    def asks(self, request: Sequence[Field]) -> bool:
        """Whether a request's fields show that it came through the CDN: nobody else is told anything."""
        ...

    def allowing(self, sent: Sequence[Field], tags: tuple[str, ...], path: str, keep: KeepFor) -> list[Field] | str:
        """What to add to an answer that may be kept: its lifetime, and all of its tags.

        `path` is the response's path as receipts name it: purges of the path must reach it as well. Where all of this
        cannot be said, the reason in one word: the CDN is forbidden to keep it then.
        """
        ...

    def forbidding(self, sent: Sequence[Field]) -> list[Field]:
        """The fields of an answer that may not be kept, with what says so."""
        ...
