"""Which rows are read and written, in every session of the process: for the searches that run beside tests."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from sqlalchemy import event
from sqlalchemy.orm import Mapper, ORMExecuteState, Session

from fastapi_cacheinval.contrib.sqlalchemy.collector import collectors
from fastapi_cacheinval.contrib.sqlalchemy.states import identity_of, is_changed, state_of

__all__ = ["observe_rows"]

Key: TypeAlias = tuple[object, ...] | None
Told: TypeAlias = Callable[[str, Key, tuple[str, ...] | None], object]


def observe_rows(read: Told, written: Told) -> Callable[[], None]:
    """Tell of each mapped row that is loaded, and of each that is written; what is returned ends it.

    Each is told as the name of its class, its primary key, and the tags that a change of it purges by all
    `collect_changes`; these are None where they cannot be known without a look. A statement that writes tells its
    class, and None in place of a key. Rows of which single columns are read, and objects that a session has already,
    are not told.
    """

    def loaded(target: Any, *_: object) -> None:
        read(*_told(target))

    def flushed(session: Session, _: object) -> None:
        for target in (*session.new, *session.deleted):
            written(*_told(target))
        for target in session.dirty:
            if is_changed(session, target, collections=True):
                written(*_told(target))

    def executed(state: ORMExecuteState) -> None:
        if not (state.is_update or state.is_delete or state.is_insert):
            return
        mapper = state.bind_mapper
        if mapper is not None:
            written(_name(mapper), None, None)

    listened: Iterable[tuple[Any, str, Any]] = (
        (Mapper, "load", loaded),
        (Mapper, "refresh", loaded),
        (Session, "after_flush", flushed),
        (Session, "do_orm_execute", executed),
    )
    for target, name, listener in listened:
        event.listen(target, name, listener)

    def end() -> None:
        for target, name, listener in listened:
            event.remove(target, name, listener)

    return end


def _name(mapper: Mapper[Any]) -> str:
    return mapper.base_mapper.class_.__name__


def _told(target: Any) -> tuple[str, Key, tuple[str, ...] | None]:
    state = state_of(target)
    mapper = state.mapper
    key = identity_of(state) or tuple(mapper.primary_key_from_instance(target))
    tags: dict[str, None] = {}
    for collector in collectors():
        known = collector.tags_of(target)
        if known is None:
            return _name(mapper), key, None
        tags.update(dict.fromkeys(known))
    return _name(mapper), key, tuple(tags)
