"""The older `Session.bulk_save_objects`, `bulk_insert_mappings` and `bulk_update_mappings`, which no event tells of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from functools import partial, wraps
from itertools import groupby
from operator import itemgetter
from typing import Any

from sqlalchemy import inspect
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Mapper

from fastapi_cacheinval.contrib.sqlalchemy.autocommit import will_stand
from fastapi_cacheinval.contrib.sqlalchemy.catalogues import catalogued
from fastapi_cacheinval.contrib.sqlalchemy.errors import UnknownRows
from fastapi_cacheinval.contrib.sqlalchemy.given import key_of_row, writes_by_key
from fastapi_cacheinval.contrib.sqlalchemy.keys import Identity
from fastapi_cacheinval.contrib.sqlalchemy.locking import take_turn
from fastapi_cacheinval.contrib.sqlalchemy.looking import Place
from fastapi_cacheinval.contrib.sqlalchemy.schema import whole_of
from fastapi_cacheinval.contrib.sqlalchemy.sqlalchemy_private import fail_as_flush
from fastapi_cacheinval.contrib.sqlalchemy.states import connection_of
from fastapi_cacheinval.contrib.sqlalchemy.watch import Watch

__all__ = ["Older"]

_NAMES = ("bulk_save_objects", "bulk_insert_mappings", "bulk_update_mappings")


class Older:
    """Stands around the three methods of a session or of a class of sessions."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._book = watch.book
        self._ledger = watch.ledger

    def stand_around(self, target: Any) -> Callable[[], None]:
        """Put itself in the place of the methods; what takes that back."""
        own_ones: dict[str, Any] = {**vars(target)}
        before = {name: own_ones.get(name) for name in _NAMES}
        for name in _NAMES:
            around = self._around(getattr(target, name), getattr(self, name), bound=not isinstance(target, type))
            setattr(target, name, around)

        def restore() -> None:
            for name, own in before.items():
                if own is None:
                    delattr(target, name)
                else:
                    setattr(target, name, own)

        return restore

    @staticmethod
    def _around(method: Any, watched: Any, *, bound: bool) -> Any:
        if bound:

            @wraps(method)
            def of_one(*args: Any, **options: Any) -> None:
                watched(method.__self__, method, *args, **options)

            return of_one

        @wraps(method)
        def of_each(session: Any, *args: Any, **options: Any) -> None:
            watched(session, partial(method, session), *args, **options)

        return of_each

    def bulk_insert_mappings(
        self,
        session: Any,
        call: Callable[..., None],
        mapper: Any,
        mappings: Iterable[Any],
        return_defaults: bool = False,  # noqa: FBT001, FBT002  # as SQLAlchemy has it
        render_nulls: bool = False,  # noqa: FBT001, FBT002
    ) -> None:
        """The mappings get the keys that the database gives them if the app asks for that; else copies get them."""
        of: Mapper[Any] = inspect(mapper).mapper
        rows = list(mappings) if return_defaults else [dict(each) for each in mappings]
        whole = self._book.whole(of)
        asked = return_defaults or (self._book.tagged(of) and not whole and self._may_be_asked(session, of))
        self._watch.flushes.besides(session, of, [value for row in rows for value in row.values()])
        with self._settled(session, [of]):
            call(of, rows, return_defaults=asked, render_nulls=render_nulls)
            if whole:
                self._ledger.add(session, self._book.any_row([of], ""))
            if self._book.tagged(of) and not whole:
                found = [key_of_row(row, of) for row in rows]
                if None in found or _twice(rows):
                    # The rows are written: an error would come too late.
                    self._ledger.add_everything(session)
                self._read(session, [(of, each) for each in found if each is not None], written=True)

    def bulk_update_mappings(
        self, session: Any, call: Callable[..., None], mapper: Any, mappings: Iterable[Any]
    ) -> None:
        """Each mapping has its key."""
        of: Mapper[Any] = inspect(mapper).mapper
        rows = list(mappings)
        places = self._places(of, rows) if self._book.tagged(whole_of(of)) else []
        self._watch.flushes.besides(session, of, [value for row in rows for value in row.values()])
        if writes_by_key({name for row in rows for name in row}, of):
            self._take_turns(session, [place[0] for place in places])
        self._read(session, places, lock=True)
        with self._settled(session, [of]):
            call(of, rows)
            self._read(session, places, own=True)

    def _take_turns(self, session: Any, mappers: Iterable[Mapper[Any]]) -> None:
        """Wait for other writers on SQLite, in the place of the method: it fails as the method does."""
        for mapper in dict.fromkeys(each for each in mappers if self._book.tagged(each)):
            connection = connection_of(session, mapper)
            try:
                take_turn(connection, mapper.tables)
            except DBAPIError:
                fail_as_flush(session)
                raise

    def _read(
        self,
        session: Any,
        places: Iterable[Place],
        *,
        lock: bool = False,
        own: bool | None = None,
        written: bool = False,
    ) -> None:
        for mapper, group in groupby(places, itemgetter(0)):
            connection = connection_of(session, mapper)
            these = list(group)
            self._watch.looks.read_again(session, these, connection, lock=lock, own=own, written=written)

    @staticmethod
    def _may_be_asked(session: Any, mapper: Mapper[Any]) -> bool:
        """Whether the keys of new rows may be asked for: a database that hides some of them would refuse these rows."""
        connection = connection_of(session, mapper)
        listed = [catalogued(connection, table) for table in mapper.tables]
        return not any(each.hides("insert") or each.replaces("insert") for each in listed)

    @contextmanager
    def _settled(self, session: Any, mappers: list[Mapper[Any]]) -> Generator[None]:
        """What is written in autocommit is purged at its end, and everything where it fails in the midst."""
        # A session that has failed gives no connection, and its error is not the one to be heard of.
        connections = [connection_of(session, mapper) for mapper in mappers if self._book.tagged(mapper)]
        with self._watch.flushes.writing(session, filter(will_stand, connections)):
            yield
        for connection in connections:
            self._watch.settle(session, connection)

    def _places(self, mapper: Mapper[Any], rows: list[Any]) -> list[Place]:
        found = [key_of_row(row, mapper) for row in rows]
        if None in found:
            raise UnknownRows(mapper.class_.__name__, "a bulk method that is given no primary key")
        # A key may be that of a row of another class of the hierarchy, and a discriminator may make it one.
        return [(whole_of(mapper), each) for each in dict.fromkeys(found) if each is not None]

    def bulk_save_objects(
        self,
        session: Any,
        call: Callable[..., None],
        objects: Iterable[Any],
        return_defaults: bool = False,  # noqa: FBT001, FBT002  # as SQLAlchemy has it
        update_changed_only: bool = True,  # noqa: FBT001, FBT002
        preserve_order: bool = True,  # noqa: FBT001, FBT002
    ) -> None:
        """New objects get the keys that the database gives them, and lose them again if they have none without us."""
        targets = list(objects)
        states: list[Any] = [inspect(each) for each in targets]
        fresh = [state for state in states if state.key is None]
        new = {state.mapper for state in fresh}
        # An object that is given twice is a row each time, but SQLAlchemy updates the first where its key is asked for.
        doubled = _twice(fresh)
        asked = any(self._book.tagged(each) for each in new) and all(self._may_be_asked(session, each) for each in new)
        order = states if preserve_order else sorted(states, key=lambda state: id(state.mapper))
        there = {(each.mapper, Identity(each.identity)): None for each in order if each.identity is not None}
        for state in states:
            self._watch.flushes.besides(session, state.mapper, state.dict.values())
        names = {each: each.committed_state if update_changed_only else each.dict for each in states if each.identity}
        self._take_turns(session, [each.mapper for each, these in names.items() if writes_by_key(these, each.mapper)])
        self._read(session, there, lock=True)
        with (
            self._settled(session, list(dict.fromkeys(state.mapper for state in states))),
            _still_new([] if return_defaults else fresh),
        ):
            call(targets, return_defaults or (asked and not doubled), update_changed_only, preserve_order)
            written = {
                (state.mapper, Identity(state.mapper.primary_key_from_instance(target))): None
                for state, target in zip(states, targets, strict=True)
                if self._book.tagged(state.mapper)
            }
            unknown = [place for place in written if None in place[1]]
            if unknown or any(self._book.tagged(state.mapper) for state in doubled):
                # The rows are written: an error would come too late.
                self._ledger.add_everything(session)
            self._read(session, [place for place in there if place not in written], own=True)
            self._read(session, [place for place in written if None not in place[1]], written=True)


def _twice(given: list[Any]) -> list[Any]:
    """Those that are there more than once, by themselves."""
    times = Counter(map(id, given))
    return [each for each in given if times[id(each)] > 1]


@contextmanager
def _still_new(states: list[Any]) -> Generator[None]:
    """Leave objects as SQLAlchemy leaves them whose keys are not asked for: a second call inserts them once more.

    Those of several tables keep their keys: by these it writes the further tables, and tells them in any case.
    """
    before = [(state, dict(state.dict)) for state in states]
    try:
        yield
    finally:
        for state, values in before:
            state.key = None
            if len(state.mapper.tables) < 2:
                for name in set(state.dict) - set(values):
                    del state.dict[name]
                state.dict.update(values)
