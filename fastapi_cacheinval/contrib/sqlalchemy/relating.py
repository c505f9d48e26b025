"""Association rows that a flush writes for relationships: the histories of its objects tell of them, and no event."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import inspect
from sqlalchemy.orm import Mapper, PassiveFlag
from sqlalchemy.orm.attributes import get_history

from fastapi_cacheinval.contrib.sqlalchemy.keys import Identity
from fastapi_cacheinval.contrib.sqlalchemy.reading import Reader
from fastapi_cacheinval.contrib.sqlalchemy.schema import Link

__all__ = ["Related", "related"]


@dataclass(slots=True)
class Related:
    """The objects that a flush relates anew by one link, or no longer, and those on the other side of it."""

    link: Link
    targets: list[Any] = field(default_factory=list[Any])
    added: list[Any] = field(default_factory=list[Any])
    deleted: list[Any] = field(default_factory=list[Any])

    def given(self) -> list[tuple[Mapper[Any], list[Identity]]]:
        """The keys by which both sides are looked for."""
        others = [*self.added, *self.deleted]
        return [(self.link.mapper, list(_keys(self.targets))), (self.link.other, list(_keys(others)))]

    def ending(self, reader: Reader) -> list[Identity]:
        """The keys of the association rows that the flush will delete; there may be some of the same rows' besides."""
        return reader.links(self.link, _keys(self.targets), list(_keys(self.deleted)), written=True)

    def made(self, reader: Reader) -> list[Identity]:
        """The keys of those that it has inserted, now that it has."""
        return reader.links(self.link, _keys(self.targets), list(_keys(self.added)))


def _keys(targets: Iterable[Any]) -> Iterator[Identity]:
    for target in targets:
        mapper: Any = inspect(target).mapper
        key = Identity(mapper.primary_key_from_instance(target))
        if None not in key:
            yield key


def related(links: Sequence[Link], targets: Iterable[Any]) -> list[Related]:
    """What changes by each link, from the histories of objects."""
    by_relationship = {(link.mapper, link.join): link for link in links}
    found: dict[Link, Related] = {}
    for target in targets:
        state: Any = inspect(target)
        for relationship in state.mapper.relationships:
            link = by_relationship.get((relationship.parent, relationship.primaryjoin))
            if link is None or relationship.viewonly:
                continue
            history = get_history(target, relationship.key, PassiveFlag.PASSIVE_NO_INITIALIZE)
            added, deleted = ([one for one in each if one is not None] for each in (history.added, history.deleted))
            if added or deleted:
                change = found.setdefault(link, Related(link))
                change.targets.append(target)
                change.added += added
                change.deleted += deleted
    return list(found.values())
