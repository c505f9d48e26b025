"""What SQLAlchemy knows of an object of a session: where its row is, whether it changes, and its class after that."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, inspect
from sqlalchemy.orm import InstanceState, Mapper, Session

from fastapi_cacheinval.contrib.sqlalchemy.keys import Identity, is_plain
from fastapi_cacheinval.contrib.sqlalchemy.schema import decides_class
from fastapi_cacheinval.contrib.sqlalchemy.sqlalchemy_private import as_flushing

__all__ = ["changes_class", "connection_of", "identity_of", "is_changed", "is_plain_in", "state_of"]


def connection_of(session: Session, mapper: Mapper[Any], target: Any = None) -> Connection:
    """The connection that a flush writes a class's rows on, or that of one object where each has its own.

    Sessions that split readers from writers ask whether they are flushing.
    """
    if session.connection_callable is not None and target is not None:
        return session.connection_callable(mapper.base_mapper, target)
    with as_flushing(session):
        return session.connection(bind_arguments={"mapper": mapper.base_mapper})


def state_of(target: Any) -> InstanceState[Any]:
    """The state of an object."""
    state: InstanceState[Any] = inspect(target)
    return state


def identity_of(state: InstanceState[Any]) -> Identity | None:
    """The key of an object's row; None where it has none yet."""
    return None if state.identity is None else Identity(state.identity)


def is_plain_in(state: InstanceState[Any], key: str) -> bool:
    """Whether what stands in the object is surely what stands in the row."""
    return key in state.dict and is_plain(state.mapper.columns[key].type, state.dict[key])


def is_changed(session: Session, target: Any, *, collections: bool = False) -> bool:
    """Whether the row of an object may be written; with `collections`, or what it is linked to."""
    try:
        return session.is_modified(target, include_collections=collections)
    except NotImplementedError:
        # SQLAlchemy has no history of what a class with a table of its own inherits from a base.
        return True


def changes_class(state: InstanceState[Any]) -> bool:
    """Whether the row of an object is, or may be, of another class than the object: its discriminator was set."""
    mapper = state.mapper
    deciding = decides_class(mapper)
    if not deciding:
        return False
    key, *more = deciding
    if more or mapper.polymorphic_on is not mapper.columns.get(key):
        # An expression over columns.
        return True
    return key in state.dict and state.dict[key] != mapper.polymorphic_identity
