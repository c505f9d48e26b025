"""How newer answers change a stored response: a 304, the answer to a HEAD, and any other (RFC 9111 section 4.3)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from fastapi_cacheinval.core.rfc9111.asking import Asked
from fastapi_cacheinval.core.rfc9111.response import SharedResponse, is_for
from fastapi_cacheinval.core.rfc9111.storing import OF_THE_REQUEST
from fastapi_cacheinval.core.stored import StoredResponse
from fastapi_cacheinval.core.storing import content_length
from fastapi_cacheinval.grammar.dates import format_date, parse_date
from fastapi_cacheinval.grammar.entity_tags import parse_etag, strong_match, weak_match
from fastapi_cacheinval.grammar.fields import OWS, RawHeaders, end_to_end, first, is_coded, values, without
from fastapi_cacheinval.grammar.vary import add_vary, written_names

__all__ = ["HeadSays", "Newer", "confirms", "freshened", "head_says", "speaks_of_get"]

_ETAG, _MODIFIED, _TYPE, _VARY = b"etag", b"last-modified", b"content-type", b"vary"
# RFC 9111 section 3.2: what describes the stored content stays with it.
_NOT_UPDATED = frozenset(
    {
        b"age",
        b"content-digest",
        b"content-encoding",
        b"content-length",
        b"content-md5",
        b"content-range",
        b"digest",
        b"etag",
        b"repr-digest",
    }
)
# Statuses below 400 that answer the conditions or the range of one request.
_OF_ONE_REQUEST = frozenset({206, 304})
_GONE = frozenset({404, 410})
# Why an answer is not kept, where the reason speaks against nothing that is stored of the same bytes.
_NOT_AGAINST = OF_THE_REQUEST | {None, "too-large", "trailers", "partial"}
_OF_A_REPRESENTATION = frozenset({200, 206})
# More than any length has: int() of very long text is slow and then raises.
_MOST_DIGITS = 18


def confirms(stored: SharedResponse, update: RawHeaders, wall: float) -> bool:
    """Whether a 304 to the validators of `stored` speaks of it, and not of another response of the same resource.

    A strong `ETag` has to be the stored one. Weak validators have to correspond, every one that the 304 has. A 304
    without any validator answers the one that was sent. `wall` is seconds since the epoch.
    """
    tags, moments = values(update, _ETAG), values(update, _MODIFIED)
    if any(not _same_tag(stored, tag) for tag in tags):
        return False
    strong = any((parsed := parse_etag(tag)) is not None and not parsed.weak for tag in tags)
    return strong or all(_same_moment(stored, moment, wall) for moment in moments)


def _same_tag(stored: SharedResponse, tag: bytes) -> bool:
    own = first(stored.headers, _ETAG)
    if own is None:
        return False
    one, other = parse_etag(own), parse_etag(tag)
    if one is None or other is None:
        return own == tag
    return weak_match(one, other) if other.weak else strong_match(one, other)


def _same_moment(stored: SharedResponse, moment: bytes, wall: float) -> bool:
    own = first(stored.headers, _MODIFIED)
    if own is None:
        return False
    parsed = parse_date(moment, wall)
    return own == moment if parsed is None else parsed == parse_date(own, wall)


class HeadSays(Enum):
    """What the answer to a HEAD means for the stored response to GET."""

    THE_SAME = "its fields renew what is stored"
    NOTHING = "what is stored stays as it is"
    UNKNOWN = "nobody can tell: what is stored is not to be used without asking again"
    CHANGED = "what is stored is outdated"


def speaks_of_get(status: int) -> bool:
    """Whether an answer to a HEAD with this status says something of what a GET would be answered now."""
    return status in _GONE or (200 <= status < 400 and status not in _OF_ONE_REQUEST)


def head_says(stored: SharedResponse, status: int, headers: RawHeaders) -> HeadSays:
    """What a HEAD's answer says of `stored`; `headers` have lower-case names.

    Only a 200 renews a stored 200, and only by a validator that both have, if every validator of the answer and its
    `Content-Length` are those that are stored. Statuses that are about the request or the server say nothing.
    """
    if status != stored.status:
        return HeadSays.CHANGED if speaks_of_get(status) else HeadSays.NOTHING
    if status != 200:
        return HeadSays.NOTHING
    lengths = values(headers, b"content-length")
    if any(not line.isdigit() or len(line) > _MOST_DIGITS or int(line) != len(stored.body) for line in lengths):
        return HeadSays.CHANGED
    both = [
        (own, said)
        for name in (_ETAG, _MODIFIED)
        for own, said in [(first(stored.headers, name), first(headers, name))]
        if said is not None
    ]
    if any(own is not None and own != said for own, said in both):
        return HeadSays.CHANGED
    return HeadSays.THE_SAME if both and all(own is not None for own, _ in both) else HeadSays.UNKNOWN


@dataclass(frozen=True, slots=True)
class Newer:
    """An answer to a GET or HEAD that speaks against what is stored.

    `headers` have lower-case names; `refusal` is why it is not kept, as in `refused_because`, and `kept` whether it is;
    `beside` is what stays in any case, as what is kept of it does.
    """

    asked: Asked
    status: int
    headers: RawHeaders
    refusal: str | None
    kept: bool = False
    beside: StoredResponse | None = None

    @property
    def of_the_whole(self) -> bool:
        """Whether it speaks of more than the range that was asked for."""
        return self.status not in (206, 416)

    def spares(self, old: StoredResponse) -> bool:
        """Whether a stored response stays in use.

        The whole takes the place of the whole. A part stays beside a whole, and a whole beside a part, by the same
        strong `ETag` alone (RFC 9110 section 8.8.1): then they are of the same bytes. Where one is coded they never
        are, and none is taken for the other: both stay by an `ETag` that a layer that compresses has made a weak one.
        """
        if old is self.beside or not isinstance(old, SharedResponse):
            return True
        if not self.kept and not is_for(self.asked, old):
            # An answer to one caller does not speak of the page that strangers share.
            return True
        if old.part is None and self.status != 206:
            # Whatever range a client makes up: that there is none such says nothing of the whole.
            return self.status == 416
        return self.refusal in _NOT_AGAINST and self._goes_with(old)

    def _goes_with(self, old: SharedResponse) -> bool:
        own, said = parse_etag(old.etag or b""), parse_etag(first(self.headers, b"etag") or b"")
        if own is None or said is None or self.status not in _OF_A_REPRESENTATION:
            return False
        if is_coded(self.headers) or is_coded(old.headers):
            return weak_match(own, said)
        length, complete = content_length(self.headers), None if old.part is None else old.part.complete
        if self.status == 200 and None not in (length, complete) and length != complete:
            return False
        return strong_match(own, said)


def freshened(old: SharedResponse, update: RawHeaders, wall: float) -> list[tuple[bytes, bytes]]:
    """The fields of a stored response after a 304 or a HEAD (RFC 9111 section 3.2), those withheld included.

    A field of the update replaces all lines of the same name where the first of them stood. An update without a `Date`
    is of the moment when it came (RFC 9110 section 6.6.1), `wall` seconds since the epoch: the stored one would make it
    as old as what it renews.

    An app's layers, and FastAPI, say other things of a response without content than of one with it. So `Vary` only
    gains names: what selected the stored content still does. `Content-Type` stays, but for parameters that are said.
    """
    fresh = without(end_to_end(update), _NOT_UPDATED)
    said = first(fresh, _TYPE)
    if said is not None and (b";" not in said or _media_type(said) != _media_type(first(old.headers, _TYPE))):
        fresh = without(fresh, {_TYPE})
    selected = [line for line in old.headers if line[0] == _VARY]
    fresh = [*without(fresh, {_VARY}), *add_vary(selected, written_names(values(fresh, _VARY)))]
    if first(update, b"date") is None and first(old.headers, b"date") is not None:
        fresh = [*fresh, (b"date", format_date(wall))]
    renewed = {name for name, _ in fresh}
    fields: list[tuple[bytes, bytes]] = []
    placed: set[bytes] = set()
    for name, value in (*old.headers, *old.withheld):
        if name not in renewed:
            fields.append((name, value))
        elif name not in placed:
            placed.add(name)
            fields += [line for line in fresh if line[0] == name]
    fields += [line for line in fresh if line[0] not in placed]
    age = first(update, b"age")
    return fields if age is None else [*fields, (b"age", age)]


def _media_type(line: bytes | None) -> bytes | None:
    return None if line is None else line.partition(b";")[0].strip(OWS).lower()
