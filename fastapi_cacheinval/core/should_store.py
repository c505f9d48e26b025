"""What a policy's `should_store` is asked about, and what it may say."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastapi_cacheinval.core.checks import called, flag
from fastapi_cacheinval.errors import ConfigurationError
from fastapi_cacheinval.grammar.fields import RawHeaders, values

__all__ = ["ResponseToStore", "ShouldStore", "checked_predicate", "is_to_be_stored"]


@dataclass(frozen=True, slots=True)
class ResponseToStore:
    """A complete response that may be stored: its status, its raw header fields with lower-case names, its body."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes

    def header(self, name: str) -> str | None:
        """The value of a field, its lines joined by commas; None where there is none."""
        found = values(self.headers, name.lower().encode("latin-1", "replace"))
        return b", ".join(found).decode("latin-1") if found else None


ShouldStore = Callable[[ResponseToStore], bool]


def checked_predicate(value: Any) -> ShouldStore | None:
    """A plain function, or None; raises `ConfigurationError` for anything else."""
    if value is None:
        return None
    if inspect.iscoroutinefunction(value) or inspect.iscoroutinefunction(getattr(value, "__call__", None)):  # noqa: B004
        raise ConfigurationError(f"should_store is a plain function, and {value!r} is async: write def, not async def.")
    predicate: ShouldStore = called(value, "should_store")
    return predicate


def is_to_be_stored(predicate: ShouldStore, status: int, headers: RawHeaders, body: bytes) -> bool:
    """What the author's function says of a response; raises what it raises, and for what is neither True nor False."""
    said: Any = predicate(ResponseToStore(status, tuple(headers), body))
    if inspect.iscoroutine(said):
        said.close()
    return flag(said, "What should_store returns")
