"""What a shared cache may store (RFC 9111 section 3)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple

from fastapi_cacheinval.core.conditional import OF_ONE_REQUEST
from fastapi_cacheinval.core.rfc9111.asking import Asked
from fastapi_cacheinval.core.rfc9111.freshness import (
    HEURISTIC_STATUSES,
    Lifetime,
    Steering,
    lifetime,
    overrides,
    steering,
)
from fastapi_cacheinval.core.rfc9111.options import HeaderOptions
from fastapi_cacheinval.core.stored import Stamp
from fastapi_cacheinval.core.storing import content_length, is_event_stream
from fastapi_cacheinval.core.tag_limits import too_many_tags
from fastapi_cacheinval.grammar.cache_control import CacheControl
from fastapi_cacheinval.grammar.fields import RawHeaders, is_coded, values
from fastapi_cacheinval.grammar.vary import ANY_FIELD, parse_vary

__all__ = [
    "OF_THE_REQUEST",
    "UNDERSTOOD",
    "Answerer",
    "Judged",
    "Received",
    "asking",
    "forbids",
    "guessed",
    "judge",
    "refused_because",
    "shareable",
    "unseen",
]

# The final statuses whose caching this cache knows (section 5.2.2.3).
UNDERSTOOD = HEURISTIC_STATUSES | frozenset({302, 303, 307, 400, 401, 403, 406, 409, 421, 429, 500, 502, 503, 504})


OF_THE_REQUEST = frozenset({"request-no-store", "authorization", "cookie", "credential"})
"""The reasons of `refused_because` that lie in the request: they say nothing of what is stored for others."""


class Answerer(Enum):
    """The kind of code that answers, as far as the cache can see. A hit by a guess must skip none of its checks."""

    UNSEEN = auto()
    """An app whose routes cannot be seen."""
    FILES = auto()
    """Plain files, and nothing on the way to them that may refuse."""
    CODE = auto()
    """Anything else in an app whose routes are seen: a handler, an exception handler, middleware, a mounted app."""
    ASKING = auto()
    """A route that declares what tells callers apart."""


def unseen() -> Answerer:
    """An app of which nothing is known."""
    return Answerer.UNSEEN


def asking() -> Answerer:
    """The route of an unsafe request: it may ask who is calling, whether or not the route of a GET there does."""
    return Answerer.ASKING


def shareable(steered: Steering) -> bool:
    """Whether a response says that it is for all, whoever asked (section 3.5)."""
    directives = steered.directives
    return directives.public or directives.s_maxage is not None or directives.must_revalidate


def guessed(steered: Steering, life: Lifetime) -> bool:
    """Whether nothing that a response says lets it be reused: what nobody called public may be one caller's own.

    `no-cache` has the app asked each time; where it names fields alone, the rest is reused.
    """
    return not (life.explicit or steered.directives.public or steered.directives.no_cache is True)


def _forbidden(asked: Asked, status: int, steered: Steering) -> str | None:
    directives = steered.directives
    if asked.directives.no_store:
        return "request-no-store"
    if directives.must_understand:
        # It overrides no-store for those who know the status, and nobody else may store.
        if status not in UNDERSTOOD:
            return "must-understand"
    elif directives.no_store:
        return "no-store"
    if directives.private is True:
        return "private"
    if asked.authorized and not shareable(steered):
        return "authorization"
    return None


def forbids(answerer: Answerer, *, ruled: bool) -> str | None:
    """Why nothing that has answered so is reused by a guess or, where that is `ruled`, by an operator's rule.

    It is asked when a response is stored, and again before it answers: another release may have stored it.
    """
    if answerer is Answerer.ASKING:
        return "caller-dependent"
    return "no-lifetime" if answerer is Answerer.CODE and not ruled else None


def _against_a_guess(asked: Asked, steered: Steering, life: Lifetime, asks: Callable[[], Answerer]) -> str | None:
    if not guessed(steered, life):
        return None
    # A credential is named first: the refusal is about this request then, and a stranger's may be stored.
    if asked.credential is not None:
        return asked.credential
    return forbids(asks(), ruled=life.ruled) or (None if steered.guessable else "not-fresh")


def refused_because(
    asked: Asked,
    status: int,
    headers: RawHeaders,
    steered: Steering,
    life: Lifetime,
    options: HeaderOptions,
    *,
    most_bytes: int,
    ranged: bool = False,
    answerer: Callable[[], Answerer] = unseen,
) -> str | None:
    """Why a response to a GET is not stored, as a token for `Cache-Status`; None where it may be.

    What answers the conditions or the `Range` of one request is nobody else's: where a `Range` was forwarded
    (`ranged`) only the whole (200) and a part (206) are kept. Without it a 206 was not asked for. A coded one may
    be a part of what is coded or, from a layer that codes all that passes, a coded part: nobody can cut it. A guessed
    lifetime needs a request without credentials, and an answer that no code of a visible app has made (`answerer`).
    """
    if status < 200 or status in OF_ONE_REQUEST:
        return "status"
    if ranged and status not in (200, 206):
        return "range"
    if status == 206 and (not ranged or is_coded(headers)):
        return "partial"
    forbidden = _forbidden(asked, status, steered)
    if forbidden is not None:
        return forbidden
    names = {name for name, _ in headers}
    if b"set-cookie" in names and not (options.set_cookie and life.explicit and life.seconds > 0):
        return "set-cookie"
    if parse_vary(values(headers, b"vary")) is ANY_FIELD:
        return "vary"
    if is_event_stream(headers):
        return "event-stream"
    if (content_length(headers) or 0) > most_bytes:
        return "too-large"
    if not (life.explicit or steered.directives.public or status in HEURISTIC_STATUSES):
        return "status"
    if against := _against_a_guess(asked, steered, life, answerer):
        return against
    validator = b"etag" in names or b"last-modified" in names
    stale = steered.directives.stale_while_revalidate or steered.directives.stale_if_error
    if life.seconds <= 0 and not validator and not stale:
        return "not-fresh"
    return None


@dataclass(frozen=True, slots=True)
class Received:
    """A response as it came, and what was known when it was asked for.

    `path` is decoded; `origin` is scheme and authority; `added` are tags in normal form that were
    collected while it was answered; `hidden` are names of fields that clients do not see; `now` is the
    cache's clock, `wall` seconds since the epoch; `route` and `trace` are as in a `StoredResponse`; `ranged` says
    that the request's `Range` was forwarded; `answerer` tells what has answered, while it does; `inner` is the path as
    mounted apps know it, where that is another.
    """

    asked: Asked
    key: bytes
    path: str
    origin: str
    stamp: Stamp
    began: float
    status: int
    headers: RawHeaders
    added: tuple[str, ...]
    now: float
    wall: float
    hidden: frozenset[bytes] = frozenset()
    route: str | None = None
    trace: str = ""
    ranged: bool = False
    answerer: Callable[[], Answerer] = unseen
    inner: tuple[str, ...] = ()


class Judged(NamedTuple):
    """What steers a received response, how long it is fresh, and why it is not stored, None where it is."""

    steered: Steering
    life: Lifetime
    refusal: str | None


def judge(received: Received, options: HeaderOptions, most_bytes: int) -> Judged:
    """Decide whether a received response is stored."""
    rule = options.rule_for(received.path)
    steered = steering(received.headers)
    if rule is not None and rule.lifetime and forbids(received.answerer(), ruled=True):
        # What a route declares of its callers is nearer to it than the path that a rule names.
        rule = None
    if rule is not None and overrides(rule, received.status):
        # Nothing of what the response says holds.
        steered = Steering(CacheControl(no_store=not rule.lifetime), targeted=True)
    life = lifetime(received.status, received.headers, steered, options, received.wall, rule)
    refusal = refused_because(
        received.asked,
        received.status,
        received.headers,
        steered,
        life,
        options,
        most_bytes=most_bytes,
        ranged=received.ranged,
        answerer=received.answerer,
    )
    if refusal is None and too_many_tags(received.added, received.headers):
        refusal = "too-many-tags"
    return Judged(steered, life, refusal)
