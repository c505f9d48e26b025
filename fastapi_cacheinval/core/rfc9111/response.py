"""A stored response that its own headers steer, and how it is made of a received one."""

from __future__ import annotations

from typing import Any

from fastapi_cacheinval.core.stored import StoredResponse
from fastapi_cacheinval.grammar.ranges import ContentRange

__all__ = ["SharedResponse"]

# For how long past its freshness a response is kept to be validated, or to be served to who asks for stale ones.
_KEPT_WITH_VALIDATOR = 86_400.0
_KEPT_WITHOUT = 600.0


class SharedResponse(StoredResponse):
    """A stored response with what RFC 9111 needs beside: see `StoredResponse` for the rest.

    `withheld` are fields that steer this cache and that clients do not see; `for_all` says that it may
    answer requests with `Authorization` (section 3.5); `only_fresh` that nobody's wish makes it usable when
    stale (`s-maxage`, section 5.2.2.10); `part` is the range that it is of, None for a whole one.
    """

    __slots__ = ("for_all", "only_fresh", "part", "withheld")

    def __init__(
        self,
        *,
        withheld: tuple[tuple[bytes, bytes], ...],
        for_all: bool,
        only_fresh: bool,
        part: ContentRange | None,
        **kept: Any,
    ) -> None:
        super().__init__(**kept)
        self.withheld = withheld
        self.for_all = for_all
        self.only_fresh = only_fresh
        self.part = part

    @property
    def validators(self) -> list[tuple[bytes, bytes]]:
        """The request fields that validate it (RFC 9111 section 4.3.1), with the bytes that came."""
        fields: list[tuple[bytes, bytes]] = []
        for name, value in self.headers:
            if name == b"etag" and not fields:
                fields.append((b"if-none-match", value))
        for name, value in self.headers:
            if name == b"last-modified" and self.last_modified is not None:
                fields.append((b"if-modified-since", value))
                break
        return fields

    @property
    def aside(self) -> tuple[tuple[bytes, bytes], ...]:
        """Fields that are kept and not sent."""
        return self.withheld

    @property
    def usable_until(self) -> float:
        """When it is past all use, validation included."""
        kept = _KEPT_WITH_VALIDATOR if self.validators else 0.0 if self.must_revalidate else _KEPT_WITHOUT
        return self.fresh_until + max(self.stale_while_revalidate, self.stale_if_error, kept)
