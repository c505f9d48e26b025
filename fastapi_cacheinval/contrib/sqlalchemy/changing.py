"""`update()` and `delete()`: which rows they change, and what the tags of these were."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Delete, Result, select
from sqlalchemy.orm import Mapper, ORMExecuteState, Session

from fastapi_cacheinval.contrib.sqlalchemy.conditions import criteria_of, doubt_of, is_wild
from fastapi_cacheinval.contrib.sqlalchemy.given import (
    key_of_row,
    keys_asked,
    names_set,
    removes,
    rows_given,
    sets,
    writes_by_key,
)
from fastapi_cacheinval.contrib.sqlalchemy.keys import Identity, key_columns, key_of, keys
from fastapi_cacheinval.contrib.sqlalchemy.locking import take_turn
from fastapi_cacheinval.contrib.sqlalchemy.looking import Places
from fastapi_cacheinval.contrib.sqlalchemy.reading import reading
from fastapi_cacheinval.contrib.sqlalchemy.running import (
    Ran,
    connection_for,
    is_bulk,
    is_replaced,
    is_several,
    options_of,
    run,
    tells,
)
from fastapi_cacheinval.contrib.sqlalchemy.schema import decides_class, spellings, whole_of
from fastapi_cacheinval.contrib.sqlalchemy.statements import target_of
from fastapi_cacheinval.contrib.sqlalchemy.watch import Watch

__all__ = ["Changes"]


@dataclass(frozen=True, slots=True)
class _Job:
    """One statement on one class; `names` are what it sets, `columns` what is asked of its rows, if that is `told`.

    `whole` is the class that its rows are of afterwards: `mapper`, or the top of the hierarchy where they may change.
    """

    state: ORMExecuteState
    dml: Any
    mapper: Mapper[Any]
    whole: Mapper[Any]
    deletes: bool
    names: set[str]
    connection: Connection
    columns: list[Any]
    told: bool


class Changes:
    """A statement on the rows of one class, which is run as it is.

    The database says which rows it has changed, by `RETURNING`. What their tags were is known from that too, where the
    statement changes none of the values in them, or deletes the rows. Else the rows are looked up before it, by its own
    condition, and locked; what it then changes beyond those is of unknown tags, and everything is purged.
    """

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._book = watch.book

    def run(self, state: ORMExecuteState, dml: Any, mapper: Mapper[Any]) -> Result[Any] | None:
        """Run a statement with what is to be read around it; None where it concerns no tag."""
        deletes, names = isinstance(dml, Delete), names_set(dml, state.parameters)
        bulk, deciding = is_bulk(state, dml), set[str]() if deletes else decides_class(mapper)
        moves = bool(deciding) and sets(names, mapper, deciding)
        # A key may be that of a row of another class, and a discriminator makes a row one of another class.
        whole = whole_of(mapper) if bulk or moves else mapper
        if not (self._book.concerns(whole) if deletes or removes(dml) else self._book.tagged(whole)):
            return None
        if not deletes and removes(dml):
            return self._unknown(state, whole, deletes=True, what="an UPDATE that may replace rows")
        reaches = deletes and any(self._book.tagged(each) for each in self._book.along(mapper))
        if self._book.whole(whole) and not reaches:
            return self._watch.widely(state, whole.self_and_descendants, "")
        if not deletes and not bulk and sets(names, mapper, key_of(mapper), doubt=False):
            return self._unknown(state, whole, deletes=False, what="an UPDATE of a primary key")
        self._watch.flush(state)
        if bulk:
            return self._by_key(state, dml, mapper)
        connection = connection_for(state, None)
        if is_replaced(state, dml, connection):
            return self._unknown(state, whole, deletes=deletes, what="a statement that a rule replaces")
        own = key_columns(mapper, target_of(dml))
        columns = own or []
        if own and deletes:
            columns = [*own, *self._further(mapper, target_of(dml))]
        told = own is not None and tells(state, dml, connection, columns)
        if own and not told and columns != own:
            columns, told = own, tells(state, dml, connection, own)
        job = _Job(state, dml, mapper, whole, deletes, names, connection, columns, told)
        if reaches or moves or self._needs_a_look(job):
            return self._look(job)
        return self._returned(job)

    def _further(self, mapper: Mapper[Any], table: Any) -> list[Any]:
        """The columns that the tags of a deleted row take, beyond its key, as far as its table has them."""
        found: list[Any] = []
        for key in sorted(self._book.of(mapper).keys - set(key_of(mapper))):
            found += [column for column in mapper.get_property(key).columns if column.table is table][:1]
        return found

    def _needs_a_look(self, job: _Job) -> bool:
        """Whether what the database says of the changed rows is not all there is to know of their tags."""
        family = self._book.family(job.mapper)
        if not job.told or any(self._book.of(each).looked for each in family):
            return True
        if job.deletes:
            needed = self._book.of(job.mapper).keys | set(key_of(job.mapper))
            return len(family) > 1 or len(job.columns) < len(needed)
        return any(sets(job.names, each, self._book.of(each).keys) for each in family)

    def _unknown(self, state: ORMExecuteState, mapper: Mapper[Any], *, deletes: bool, what: str) -> Result[Any]:
        """Run a statement whose rows cannot be told, if there are tags for any row; else raise before it."""
        others = self._book.along(mapper) if deletes else ()
        affected = [*mapper.self_and_descendants, *(one for each in others for one in each.self_and_descendants)]
        return self._watch.widely(state, affected, what)

    # -- rows that the database says --------------------------------------------------------------

    def _returned(self, job: _Job) -> Result[Any]:
        session = job.state.session
        ran = run(job.state, job.dml, job.columns, telling=True)
        if ran.rows is None:
            self._watch.ledger.add_everything(session)
        elif job.deletes:
            names = [job.mapper.get_property_by_column(column).key for column in job.columns]
            for row in ran.rows:
                for values in spellings(job.mapper, dict(zip(names, row, strict=True)), job.connection):
                    self._watch.ledger.add(session, self._book.of(job.mapper).rendered(values))
        else:
            self._read_again(job, ran, {(job.mapper, Identity(row)) for row in ran.rows}, written=True)
        return ran.result

    def _read_again(self, job: _Job, ran: Ran, places: Places, *, written: bool = False) -> None:
        connection, options = ran.connection or job.connection, options_of(job.state)
        self._watch.looks.read_again(job.state.session, places, connection, options, written=written)

    # -- rows that are looked up -------------------------------------------------------------------

    def _look(self, job: _Job) -> Result[Any]:
        state, mapper, session = job.state, job.mapper, job.state.session
        asked, kinds = (None if job.told else keys_asked(job.dml, state.parameters, mapper)) or (None, None)
        if is_wild(job.dml) and asked is None:
            what = "a condition that picks rows by chance, or calls a function that may do so"
            what = f"{what} (read the keys first, and name them)"
            return self._unknown(state, job.whole, deletes=job.deletes, what=what)
        doubt = None if job.told or asked is not None else self._doubt_of(job)
        if doubt is not None:
            what = f"{doubt}, where the database does not return what was changed"
            return self._unknown(state, job.whole, deletes=job.deletes, what=what)
        take_turn(job.connection, [target_of(job.dml)], options_of(state))
        again: Places = set()
        # A part of the rows that stands in another table is not written.
        of = keys(mapper)[0]
        with self._watch.looks.reading(session, job.connection, options_of(state), gone=job.deletes) as reader:
            if asked is None:
                query: Any = select(*keys(mapper)).where(*job.dml._where_criteria)  # noqa: SLF001
                query = query.options(*criteria_of(job.dml))
                found = reader.locked(mapper, query, state.parameters, gone=job.deletes, of=of)
            else:
                found = reader.present(mapper, asked, kinds, gone=job.deletes, listed=True, of=of)
            tags = reader.tags(
                mapper, found, lock=True, gone=job.deletes, met=None if job.deletes else again, there=True, of=of
            )
            self._watch.ledger.add(session, [*self._book.of(mapper).wide, *tags])
            if job.deletes:
                self._watch.looks.along(session, reader, mapper, found, again)
        ran = run(state, job.dml, job.columns, telling=job.told)
        if not (self._agrees(job, ran, found) if asked is None else self._asked_agrees(job, ran, found, asked, kinds)):
            self._watch.ledger.add_everything(session)
        changed: Places = set()
        if not job.deletes:
            rows = found if ran.rows is None else [row[: len(mapper.primary_key)] for row in ran.rows]
            changed.update((job.whole, Identity(each)) for each in rows)
        self._read_again(job, ran, again - changed)
        self._read_again(job, ran, changed, written=True)
        return ran.result

    @staticmethod
    def _doubt_of(job: _Job) -> str | None:
        """Why the rows that are looked up may be others than those that are changed though their number is the same."""
        dialect, several = job.connection.dialect, is_several(job.state)
        doubt = doubt_of(job.dml, frozenset(job.names) if several else frozenset())
        if doubt is not None:
            return doubt
        counts = dialect.supports_sane_multi_rowcount if several else dialect.supports_sane_rowcount
        return None if counts else "a statement whose rows the driver does not count"

    @staticmethod
    def _agrees(job: _Job, ran: Ran, found: list[Identity]) -> bool:
        if ran.connection is not None and ran.connection is not job.connection:
            return False
        if job.told:
            size = len(job.mapper.primary_key)
            return ran.rows is not None and {Identity(row[:size]) for row in ran.rows} <= set(found)
        return ran.count is not None and ran.count <= len(found)

    def _asked_agrees(self, job: _Job, ran: Ran, found: list[Identity], asked: list[Identity], kinds: Any) -> bool:
        """Whether no row has come to one of the keys between the look and the statement."""
        if ran.connection is not None and ran.connection is not job.connection:
            return False
        if job.deletes:
            return len(set(found)) == len(set(asked)) or (ran.count is not None and ran.count <= len(found))
        with reading(job.connection, self._book, options_of(job.state)) as reader:
            return set(reader.present(job.mapper, asked, kinds)) <= set(found)

    # -- rows whose keys are given -----------------------------------------------------------------

    def _by_key(self, state: ORMExecuteState, dml: Any, given_for: Mapper[Any]) -> Result[Any]:
        """`session.execute(update(Class), [...])`: each set of parameters has its row's key."""
        given = [key_of_row(row, given_for) for row in rows_given(None, state.parameters)]
        mapper = whole_of(given_for)
        if not given or None in given:
            return self._unknown(state, mapper, deletes=False, what="an UPDATE by primary keys that are not given")
        found = [each for each in given if each is not None]
        session, connection = state.session, connection_for(state, given_for)
        options = options_of(state, of_statement=True)
        if writes_by_key(names_set(dml, state.parameters), given_for):
            take_turn(connection, given_for.tables, options)
        there = self._as_given(session, connection, options, mapper, found, lock=True)
        result = state.invoke_statement()
        now = self._as_given(session, connection, options, mapper, found, lock=False)
        if not now <= there:
            self._watch.ledger.add_everything(session)
        return result

    def _as_given(
        self,
        session: Session,
        connection: Connection,
        options: dict[str, Any],
        mapper: Mapper[Any],
        given: list[Identity],
        *,
        lock: bool,
    ) -> set[Identity]:
        """Note the tags of the rows that the app's keys find, as SQLAlchemy's statement finds them; which these are."""
        there: list[Identity] = []
        with self._watch.looks.reading(session, connection, options, given=[(mapper, given)]) as reader:
            if lock:
                reader.take({mapper: given}, listed=True)
            there = reader.present(mapper, given, listed=True)
            # The keys that the database says need not find the row once more: a type may load what it does not take.
            these = there if reader.are_plain(mapper, there) else given
            self._watch.ledger.add(session, reader.tags(mapper, these, lock=lock, own=not lock))
        return set(there)
