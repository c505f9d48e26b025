"""What is asked of a CDN and what it answers, as plain values, and the protocol that an adapter follows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from fastapi_cacheinval import ConfigurationError

__all__ = ["CDN", "Answer", "Done", "Purge", "PurgeRequest", "Rate", "Refused", "Retry", "Verdict"]


@dataclass(frozen=True, slots=True)
class Purge:
    """What a CDN is to give up: `tags` in the cache's own form, or `everything`; `soft` asks to keep it as stale."""

    tags: tuple[str, ...] = ()
    soft: bool = False
    everything: bool = False


@dataclass(frozen=True, slots=True)
class PurgeRequest:
    """One HTTP request to a CDN, and the `tags` that it purges there; none where it purges everything.

    Secrets and data may be in all of it but the method: they are in no `repr`.
    """

    method: str
    url: str = field(repr=False)
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    body: bytes = field(default=b"", repr=False)
    tags: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: `headers` by lower-case name, of the body at most its first 64 KiB; `whole` if that is all."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: bytes = b""
    whole: bool = True


@dataclass(frozen=True, slots=True)
class Done:
    """The CDN has confirmed it."""


@dataclass(frozen=True, slots=True)
class Retry:
    """Not now: the same request again, after so many seconds where the CDN has said how many."""

    reason: str
    after: float | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """The CDN does not take this request as it is.

    `by_tag` where what is named may be at fault, so that it is split until the tag is found; else it is the
    configuration (a token, an address), and the same is tried again, less and less often, until that is mended.
    """

    reason: str
    by_tag: bool = False


Verdict = Done | Retry | Refused
"""What an answer of a CDN means for the request."""


@dataclass(frozen=True, slots=True)
class Rate:
    """At most so many requests `per_second`, after a `burst` of so many at once.

    Raises `ConfigurationError` for a rate that is not positive, or a burst below one.
    """

    per_second: float
    burst: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.per_second < math.inf or self.burst < 1:
            raise ConfigurationError(f"A rate is over 0 per second, with a burst of at least 1, not {self!r}.")


@runtime_checkable
class CDN(Protocol):
    """How one CDN wants to be told: pure functions, without any I/O, so that anybody can write one.

    `rate` is how fast it takes requests. None of the methods may raise for a tag in the cache's own form: printable
    ASCII without white space, at most 1,024 bytes.
    """

    @property
    def rate(self) -> Rate:
        """How fast it takes requests, unless the purger is told otherwise."""
        ...

    def key(self, tag: str) -> str:
        """A tag as the CDN knows it: the same text stands in the header of a response and in a purge."""
        ...

    def requests(self, purge: Purge) -> Sequence[PurgeRequest]:
        """What to send: each tag in one request at least, each request within the CDN's limits."""
        ...

    def judge(self, request: PurgeRequest, answer: Answer) -> Verdict:
        """What an answer means; `Done` only where the CDN has really confirmed it."""
        ...
