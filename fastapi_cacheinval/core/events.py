"""What a cache tells as it happens, and what an invalidation gives back.

How each request was answered, purges, resets, and the log's coming and going. Nothing in here holds a body, a
credential or the value of a partition. The last purges are remembered, so that somebody may ask which of them hit a
response.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from fastapi_cacheinval.core.log_types import LogEntry
from fastapi_cacheinval.core.tags import ALL, path_tag, reserved_in, shown_tags

__all__ = [
    "ConnectionEvent",
    "Decision",
    "Event",
    "PurgeEvent",
    "Receipt",
    "RecentPurges",
    "ResetEvent",
    "digest_of",
    "purge_event",
    "receipt_of",
    "shown_target",
]

_MOST_SHOWN = 2048
_HIDDEN = "***"
_DIGEST_BYTES = 8


@dataclass(frozen=True, slots=True)
class Decision:
    """How one cacheable request was answered.

    `time` is seconds since the epoch, `seconds` from the request's coming to the beginning of its answer. `path` is
    percent-encoded, with the query; a value under the name of a credential is `***`. `route` is a label as in
    `statistics().routes`. `result` is `hit`, `stale`, `miss`, `collapsed` or `bypass`; `reason` the `fwd` of RFC 9211,
    and `cache_status` all that `Cache-Status` says of it. `detail` is what stood in the way of storing. `tier` is `l1`
    or `l2`; `age` and `ttl` are seconds, `ttl` negative where the response was stale. `key` is a digest of the cache
    key, 16 hexadecimal digits, empty where no key was made. `tags` are those known by then.
    """

    time: float
    method: str
    path: str
    route: str
    result: str
    reason: str | None
    detail: str | None
    tier: str | None
    age: float | None
    ttl: int | None
    stored: bool
    key: str
    tags: tuple[str, ...]
    seconds: float
    cache_status: str


@dataclass(frozen=True, slots=True)
class PurgeEvent:
    """A purge that this replica obeys from now on.

    `time` is seconds since the epoch, here; `term`, `seq`, `tags`, `paths`, `soft` and `everything` are as in a
    `Receipt`. `own` says that it was made here, and `by` then names the mutation's route, where there was one; of
    another's it names the process, as host/pid. `trace` is the `traceparent` of what purged, empty where nobody
    recorded it. `delay` is how many seconds after the log took it another's purge was applied, as far as that is known.
    """

    time: float
    term: int
    seq: int
    tags: tuple[str, ...]
    paths: tuple[str, ...]
    soft: bool
    everything: bool
    own: bool
    by: str = ""
    trace: str = ""
    delay: float | None = None


@dataclass(frozen=True, slots=True)
class ResetEvent:
    """Everything that was kept had to be given up; `cause` is one of `statistics().reset_causes`."""

    time: float
    term: int
    cause: str


@dataclass(frozen=True, slots=True)
class ConnectionEvent:
    """The purge log is in touch from now on, or is not; `cause` says why not."""

    time: float
    connected: bool
    cause: str = ""


Event = Decision | PurgeEvent | ResetEvent | ConnectionEvent
"""All that `HTTPCache.subscribe` tells."""


def digest_of(key: bytes | None) -> str:
    """What is shown of a cache key; it tells keys apart, and nothing of what is in them."""
    return "" if key is None else key[:_DIGEST_BYTES].hex()


def shown_target(path: str, query: Sequence[tuple[str, str]], secret: Sequence[str]) -> str:
    """A path and query as they are shown, percent-encoded and bounded; the values of the names in `secret` are not.

    `path` is decoded, `query` are its names and values, decoded too.
    """
    shown = quote(path[:_MOST_SHOWN], safe="/:@!$&'()*+,;=~{}", errors="replace")
    fields = [
        f"{quote(name, errors='replace')}={_HIDDEN if name in secret else quote(value, errors='replace')}"
        for name, value in query
    ]
    target = f"{shown}?{'&'.join(fields)}" if fields else shown
    return target if len(target) <= _MOST_SHOWN else f"{target[:_MOST_SHOWN]}..."


def purge_event(
    line: LogEntry,
    time: float,
    *,
    own: bool,
    by: str = "",
    delay: float | None = None,
    receipt: Receipt | None = None,
) -> PurgeEvent:
    """What is told of a line of the log; its receipt is made where there is none."""
    receipt = receipt_of(line) if receipt is None else receipt
    return PurgeEvent(
        time,
        receipt.term,
        receipt.seq,
        receipt.tags,
        receipt.paths,
        receipt.soft,
        receipt.everything,
        own,
        by or ("" if own else line.origin),
        line.traceparent if line.trace else "",
        delay,
    )


_MOST_PURGES = 1000
_MOST_TAGS = 50_000


class RecentPurges:
    """Bounded in purges and in their tags: the oldest make room."""

    __slots__ = ("_kept", "_tags")

    def __init__(self) -> None:
        self._kept: deque[PurgeEvent] = deque()
        self._tags = 0

    def __len__(self) -> int:
        return len(self._kept)

    def __iter__(self) -> Iterator[PurgeEvent]:
        # A copy is made in one step; another thread may be adding one.
        return iter(list(self._kept))

    def add(self, purge: PurgeEvent) -> None:
        """Remember one more."""
        self._kept.append(purge)
        self._tags += len(purge.tags) + len(purge.paths)
        while len(self._kept) > _MOST_PURGES or (self._tags > _MOST_TAGS and len(self._kept) > 1):
            gone = self._kept.popleft()
            self._tags -= len(gone.tags) + len(gone.paths)

    def last_of(self, tags: Iterable[str]) -> PurgeEvent | None:
        """The last remembered purge of any of these tags, reserved ones included; None where there is none."""
        wanted = frozenset(tags)
        for purge in reversed(list(self._kept)):
            everything = purge.everything and ALL in wanted
            if everything or not wanted.isdisjoint(purge.tags) or any(path_tag(each) in wanted for each in purge.paths):
                return purge
        return None


_PATH = path_tag("")


@dataclass(frozen=True, slots=True)
class Receipt:
    """One purge as it stands in the log.

    `term` and `seq` are its number; `tags` are in normal form, `paths` the target paths it names,
    `everything` is True for a `clear()`. `replicas` and `seconds` are set where the call waited for
    every replica: how many applied it, and how long that took. `reason` is "new-term" where the log
    had just begun anew: the call waited until leases of the term before had ended.
    """

    term: int
    seq: int
    tags: tuple[str, ...]
    soft: bool
    paths: tuple[str, ...] = ()
    everything: bool = False
    replicas: int | None = None
    seconds: float | None = None
    reason: str | None = None


def receipt_of(line: LogEntry) -> Receipt:
    """The receipt of a purge that stands in the log."""
    reserved = reserved_in(line.tags)
    return Receipt(
        term=line.term.number,
        seq=line.seq,
        tags=shown_tags(line.tags) if reserved else line.tags,
        soft=line.soft,
        paths=tuple([tag[len(_PATH) :] for tag in reserved if tag.startswith(_PATH)]),
        everything=ALL in reserved,
    )
