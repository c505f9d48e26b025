"""A stored response that its own headers steer, and what it is good for (RFC 9111 sections 4 and 5.2.1, RFC 5861)."""

from __future__ import annotations

from math import inf
from typing import Any

from fastapi_cacheinval.core.decide import MISSED, Forward, Serve, ServeStale
from fastapi_cacheinval.core.outcome import Reason
from fastapi_cacheinval.core.rfc9111.asking import Asked
from fastapi_cacheinval.core.stored import StoredResponse
from fastapi_cacheinval.grammar.fields import is_coded
from fastapi_cacheinval.grammar.ranges import ContentRange

__all__ = ["SharedResponse", "answers", "is_for", "is_for_the_app_to_cut", "outlasts", "stands_in"]

# For how long past its freshness a response is kept to be validated, or to be served to who asks for stale ones.
_KEPT_WITH_VALIDATOR = 86_400.0
_KEPT_WITHOUT = 600.0


class SharedResponse(StoredResponse):
    """A stored response with what RFC 9111 needs beside: see `StoredResponse` for the rest.

    `withheld` are fields that steer this cache and that clients do not see; `for_all` says that it may
    answer requests with `Authorization` (section 3.5); `guessed` that it does not say itself that it may be reused, so
    that it is for requests without credentials; `ruled` that an operator's rule says for how long; `only_fresh` that
    nobody's wish makes it usable when stale (`s-maxage`, section 5.2.2.10); `part` is the range that it is of, None for
    a whole one. `spares_until` is until when a guess or a rule is known to let it stand in the place of what
    answers now; it alone changes.
    """

    __slots__ = ("for_all", "guessed", "only_fresh", "part", "ruled", "spares_until", "withheld")

    def __init__(
        self,
        *,
        withheld: tuple[tuple[bytes, bytes], ...],
        for_all: bool,
        guessed: bool,
        ruled: bool,
        only_fresh: bool,
        part: ContentRange | None,
        **kept: Any,
    ) -> None:
        super().__init__(**kept)
        self.withheld = withheld
        self.for_all = for_all
        self.guessed = guessed
        self.ruled = ruled
        self.spares_until = -inf
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


_REQUEST = Forward(Reason.REQUEST)
_STALE = Forward(Reason.STALE)


def is_for(asked: Asked, stored: SharedResponse) -> bool:
    """Whether a response may answer a request with its credentials, whatever its age, or be validated for it.

    A 304 is no word either: an app may tell its pages apart by a `Last-Modified` that all callers' pages share.
    """
    if asked.authorized and not stored.for_all:
        return False
    return not stored.guessed or asked.credential is None


def is_for_the_app_to_cut(asked: Asked, stored: SharedResponse) -> bool:
    """Whether the app has to answer a request for ranges, because the stored whole is coded.

    A coded representation has to have another strong `ETag` than the plain one, or their ranges get mixed up (RFC 9110
    section 8.8.3.3). A layer that compresses leaves the app's own: Starlette's `GZipMiddleware` does, and it codes no
    206. So a client may have its rest, and its `If-Range` (section 13.1.5), of either, and only the app tells which it
    gives parts of. Who wants nothing but what is stored gets the whole: `Range` may be ignored (section 14.2).
    """
    if asked.ranges is None or asked.directives.only_if_cached:
        return False
    return stored.part is None and stored.status == 200 and is_coded(stored.headers)


def answers(
    asked: Asked, stored: SharedResponse | None, stale_from: float | None, now: float
) -> Serve | ServeStale | Forward:
    """What a lookup's result is good for.

    `stale_from` is the replica's word: None where the response may not be used at all, else from when
    on a soft purge makes it stale.
    """
    if stored is None or stale_from is None:
        return MISSED
    wanted = asked.directives
    if wanted.no_cache or not is_for(asked, stored):
        return _REQUEST
    fresh_until = min(stored.fresh_until, stale_from)
    age, left = now - stored.created, fresh_until - now
    if wanted.max_age is not None and (age > wanted.max_age or not wanted.max_age):
        return _REQUEST
    if wanted.min_fresh is not None and left < wanted.min_fresh:
        return _REQUEST
    if asked.ranges is not None and is_for_the_app_to_cut(asked, stored):
        return _REQUEST if left > 0 else _STALE
    if left > 0:
        return Serve(stored, refresh=False)
    if stored.must_revalidate:
        return _STALE
    if -left < stored.stale_while_revalidate:
        return ServeStale(stored)
    tolerated = wanted.max_stale
    if tolerated is not None and not stored.only_fresh and (tolerated is True or -left <= tolerated):
        return Serve(stored, refresh=False)
    return _STALE


def stands_in(asked: Asked, stored: SharedResponse, stale_from: float | None, now: float) -> bool:
    """Whether a response may stand in for a forward that failed (RFC 5861 section 4).

    It may for as long as the response says, or the request, unless the response forbids stale answers.
    """
    if stale_from is None or not is_for(asked, stored):
        return False
    fresh_until = min(stored.fresh_until, stale_from)
    if stored.must_revalidate:
        return now < fresh_until
    window = stored.stale_if_error
    if not stored.only_fresh:
        window = max(window, asked.directives.stale_if_error or 0)
    return now < fresh_until + window


def outlasts(stored: SharedResponse, stale_from: float | None, now: float) -> bool:
    """Whether a response stays in use after a refresh in the background that was answered with an error.

    It does while it is fresh, and for as long as it may be served stale for any reason: an error that callers do not
    have to see takes nothing from them, even if it could be stored.
    """
    if stale_from is None:
        return False
    window = 0.0 if stored.must_revalidate else max(stored.stale_while_revalidate, stored.stale_if_error)
    return now < min(stored.fresh_until, stale_from) + window
