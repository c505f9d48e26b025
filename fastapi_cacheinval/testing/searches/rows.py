"""Rows that pages have read and mutations have changed: tags that are missing, and pages that were left standing."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from fastapi_cacheinval.core.tags import normalise_tag, shown_tags
from fastapi_cacheinval.core.words import few
from fastapi_cacheinval.engine.request_tags import is_answering
from fastapi_cacheinval.testing.searches.asking import Answer, Asking, InStore
from fastapi_cacheinval.testing.searches.findings import Costs, Finding

__all__ = ["Notes", "Pages", "Row", "missing_tags", "note_changed", "note_read", "noting"]

_MOST_PAGES = 1_000
_MOST_NAMED = 3


@dataclass(frozen=True, slots=True)
class Row:
    """A row by its class and key; `key` is None for any row of the class.

    `tags` are those that its changes purge, None where they cannot be known without looking.
    """

    model: str
    key: tuple[object, ...] | None
    tags: tuple[str, ...] | None = ()

    def is_in(self, rows: Iterable[Row]) -> bool:
        """Whether one of them is this row, or may be."""
        return any(each.model == self.model and (None in (each.key, self.key) or each.key == self.key) for each in rows)

    def __str__(self) -> str:
        return self.model if self.key is None else f"{self.model}({', '.join(map(repr, self.key))})"


@dataclass(slots=True)
class Notes:
    """The rows that one request has read and changed."""

    read: dict[Row, None] = field(default_factory=dict[Row, None])
    changed: dict[Row, None] = field(default_factory=dict[Row, None])


_notes: ContextVar[Notes | None] = ContextVar("fastapi_cacheinval_rows", default=None)


@contextmanager
def noting() -> Generator[Notes, None, None]:
    """Note the rows of what this context does."""
    notes = Notes()
    token = _notes.set(notes)
    try:
        yield notes
    finally:
        _notes.reset(token)


def note_read(row: Row) -> None:
    """A row was read. What covers read before the lookup is read again on each hit, and does not count."""
    notes = _notes.get()
    if notes is not None and is_answering():
        notes.read[row] = None


def note_changed(row: Row) -> None:
    """A row was written."""
    notes = _notes.get()
    if notes is not None:
        notes.changed[row] = None


def missing_tags(asking: Asking, stored: InStore, read: Iterable[Row], costs: Costs) -> Finding | None:
    """The rows that a stored response was made of and that no tag of it names."""
    has = frozenset(stored.stored.tags)
    lacking: list[Row] = []
    for row in read:
        if row.tags is None:
            costs.undecided += 1
        elif row.tags:
            costs.rows += 1
            if has.isdisjoint(normalise_tag(tag) or "" for tag in row.tags):
                lacking.append(row)
    if not lacking:
        return None
    route = asking.plan.get_label
    wanted = list(dict.fromkeys(row.tags[0] for row in lacking if row.tags))
    text = (
        f"{asking.asked.target} was made of rows that none of its tags names: a change of them leaves it standing.\n"
        f"  rows:     {few(lacking, _MOST_NAMED)}\n"
        f"  its tags: {', '.join(shown_tags(stored.stored.tags)) or 'none'}\n"
        f"  write, at {route} ({asking.plan.endpoint}): a parameter tags: CacheTags, and "
        f"tags.add({few(wanted, _MOST_NAMED, repr)}); or the tag in cached(..., tags=[...])."
    )
    return Finding("missing-tags", (route, *sorted({row.model for row in lacking})), text)


@dataclass(slots=True)
class _Page:
    asking: Asking
    rows: dict[Row, None]


class Pages:
    """The stored responses of one test, each with the rows that it was made of."""

    def __init__(self) -> None:
        self._pages: dict[tuple[object, ...], _Page] = {}

    def keep(self, asking: Asking, stored: InStore, read: dict[Row, None]) -> None:
        """A response is stored; what an earlier one of the same page has read counts too."""
        place = (id(asking.asked.middleware), stored.stored.key, stored.stored.vary)
        known = self._pages.pop(place, None)
        rows = {**({} if known is None else known.rows), **read}
        if rows:
            self._pages[place] = _Page(asking, rows)
        if len(self._pages) > _MOST_PAGES:
            del self._pages[next(iter(self._pages))]

    async def unpurged(self, mutation: str, changed: dict[Row, None], *, quiet: Callable[[], bool]) -> list[Finding]:
        """The pages that read what a mutation changed, are still handed out, and differ from what the app says now."""
        found: list[Finding] = []
        for page in [*self._pages.values()]:
            rows = [row for row in page.rows if row.is_in(changed)]
            if not rows:
                continue
            asking, caller = page.asking, page.asking.asked.caller
            stored = await asking.stored(caller)
            if stored is None or stored.stale:
                continue
            said = await asking.instead(caller, stored.answer)
            if said is not None and quiet() and asking.usable(stored.stored):
                found.append(_survivor(asking, stored, rows, mutation, said))
        return found


def _survivor(asking: Asking, stored: InStore, rows: list[Row], mutation: str, said: Answer) -> Finding:
    route, tags = asking.plan.get_label, shown_tags(stored.stored.tags)
    purged = list(dict.fromkeys(tag for row in rows for tag in row.tags or ()))
    lines: list[str] = []
    if purged:
        lines.append(f"at {route}, tags.add({purged[0]!r}), which the change of the row purges")
    if tags:
        lines.append(f"at {mutation}, dependencies=[invalidates({tags[0]!r})]")
    if not lines:
        lines.append(f"at {route}, cached(..., tags=[...]), and the same tag at {mutation}, invalidates(...)")
    text = (
        f"{mutation} changed a row that {asking.asked.target} had read, and left the page standing.\n"
        f"  rows:              {few(rows, _MOST_NAMED)}\n"
        f"  tags of the page:  {', '.join(tags) or 'none'}\n"
        f"  with the cache:    {stored.answer}\n"
        f"  without the cache: {said}\n"
        f"  write, {'; or '.join(lines)}."
    )
    return Finding("unpurged", (route, mutation), text)
