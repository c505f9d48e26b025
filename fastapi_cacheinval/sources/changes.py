"""What an event asks to purge, and how many events become few purges: pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final, TypeVar, cast

from fastapi_cacheinval.errors import CacheinvalError

__all__ = ["EVERYTHING", "Change", "UnreadableEvent", "causes_in", "in_few", "read_by"]

E = TypeVar("E")

# https://www.w3.org/TR/trace-context/
_TRACE = ("traceparent", "tracestate")
_LONGEST_TRACE = 512
# More tags of one event are no tags any more but a reason for `EVERYTHING`.
_MOST_TAGS = 100_000


class _Everything(frozenset[str]):
    def __repr__(self) -> str:
        return "EVERYTHING"


EVERYTHING: Final[frozenset[str]] = _Everything()
"""What a function of tags returns for a change that touches all: a truncated table, a restored backup."""


@dataclass(frozen=True, slots=True)
class Change:
    """What an event asks to purge: some tags, or everything; nothing at all where it has neither, and then it is false.

    `causes` are the W3C Trace Context fields (`traceparent`, `tracestate`) of what led to it, which its span links to.
    """

    tags: tuple[str, ...] = ()
    soft: bool = False
    everything: bool = False
    causes: tuple[Mapping[str, str], ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.tags, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError("the tags of a Change are a tuple of str, not one str")

    def __bool__(self) -> bool:
        return bool(self.tags) or self.everything

    @classmethod
    def of(
        cls, found: object, *, soft: bool = False, causes: Iterable[Mapping[str, str]] = (), most_tags: int = _MOST_TAGS
    ) -> Change:
        """The change that a user's function names, which is the same in every source.

        It returns tags, one tag as a str, `EVERYTHING`, a `Change`, or None where nothing changes. Raises
        `UnreadableEvent` for anything else, for a tag that is empty, and for more than `most_tags`.
        """
        if isinstance(found, Change):
            return replace(found, causes=(*found.causes, *causes))
        if found is EVERYTHING:
            return cls((), soft, everything=True, causes=tuple(causes))
        given = (found,) if isinstance(found, str) else () if found is None else found
        if isinstance(given, bytes) or not isinstance(given, Iterable):
            raise UnreadableEvent(f"a tag is a str, or one of an iterable of them, not {type(found).__name__}")
        tags: dict[str, None] = {}
        for tag in cast("Iterable[object]", given):
            if not isinstance(tag, str) or not tag:
                told = "empty" if tag == "" else type(tag).__name__
                raise UnreadableEvent(f"a tag is text that is not empty, not {told}")
            tags[tag] = None
            if len(tags) > most_tags:
                raise UnreadableEvent(f"it names more than {most_tags} tags: EVERYTHING is for that")
        return cls(tuple(tags), soft, causes=tuple(causes))


class UnreadableEvent(CacheinvalError):
    """An event that no change can be read from, or not all of it. Its text says what is wrong, and quotes nothing.

    `readable` is what it names for certain. That is purged, whatever becomes of the event.
    """

    def __init__(self, text: str, readable: Change | None = None) -> None:
        super().__init__(text)
        self.readable = Change() if readable is None else readable


def read_by(
    function: Callable[[E], object],
    event: E,
    *,
    soft: bool = False,
    causes: Iterable[Mapping[str, str]] = (),
    most_tags: int = _MOST_TAGS,
) -> Change:
    """The change that a function of the user's names for an event: it returns what `Change.of` takes.

    Raises `UnreadableEvent`, of what the function raises in its place the type alone is told. What waiting cures, an
    `OSError` such as a time-out, is raised as it is: then nothing is wrong with the event, and it is tried again.
    """
    try:
        return Change.of(function(event), soft=soft, causes=causes, most_tags=most_tags)
    except OSError:
        raise
    except UnreadableEvent as error:
        known = error.readable
        if known:
            error.readable = replace(known, soft=soft or known.soft, causes=known.causes or tuple(causes))
        raise
    except Exception as error:
        raise UnreadableEvent(f"the function that names its tags raised {type(error).__name__}") from error


def causes_in(fields: Iterable[tuple[str, object]]) -> tuple[Mapping[str, str], ...]:
    """The W3C Trace Context among headers or attributes, as the `causes` of a `Change`; nothing without `traceparent`.

    Names are compared without case, and bytes are ASCII. What is longer than 512 characters costs a link.
    """
    found: dict[str, str] = {}
    for name, value in fields:
        text = value.decode("ascii", "replace") if isinstance(value, bytes) else value
        if name.lower() in _TRACE and isinstance(text, str) and len(text) <= _LONGEST_TRACE:
            found[name.lower()] = text
    return (found,) if "traceparent" in found else ()


def in_few(
    changes: Iterable[tuple[E, Change]], most_tags: int = 1_000, most_bytes: int = 1 << 40
) -> Iterator[tuple[tuple[E, ...], Change]]:
    """The same in as few changes as their order and the bounds allow, each with the events that it brings to their end.

    Neighbours that are equally soft become one; what is too large comes in parts, of which the last has the event. One
    tag of more than `most_bytes` is a part of its own.
    """
    events: tuple[E, ...] = ()
    last: Change | None = None
    for event, change in changes:
        *first, end = _parts(change, most_tags, most_bytes)
        for part, done in (*((each, ()) for each in first), (end, (event,))):
            if last is not None and _fit(last, part, most_tags, most_bytes):
                last = replace(last, tags=last.tags + part.tags, causes=last.causes + part.causes)
                events += done
            else:
                if last is not None:
                    yield events, last
                events, last = done, part
    if last is not None:
        yield events, last


def _fit(one: Change, other: Change, most_tags: int, most_bytes: int) -> bool:
    tags = one.tags + other.tags
    return (
        (one.soft, one.everything) == (other.soft, other.everything)
        and len(tags) <= most_tags
        and sum(map(len, tags)) <= most_bytes
    )


def _parts(change: Change, most_tags: int, most_bytes: int) -> Iterator[Change]:
    part: list[str] = []
    size = 0
    for tag in change.tags:
        if part and (len(part) >= most_tags or size + len(tag) > most_bytes):
            yield replace(change, tags=tuple(part))
            part, size = [], 0
        part.append(tag)
        size += len(tag)
    yield replace(change, tags=tuple(part))
