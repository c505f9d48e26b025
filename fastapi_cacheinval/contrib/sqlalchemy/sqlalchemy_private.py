"""The one place that touches names of SQLAlchemy's modules and sessions that it does not document; tests pin each.

What is private in statements and results is read where it is needed, as SQLAlchemy's own extensions do.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Any, cast
from weakref import ref

import sqlalchemy
from sqlalchemy import Connection, Result
from sqlalchemy.engine import ChunkedIteratorResult, CursorResult
from sqlalchemy.engine import cursor as _cursor
from sqlalchemy.orm import Mapper, ORMExecuteState, Session
from sqlalchemy.util import topological

__all__ = [
    "FLUSHES_BEFORE_TABLES",
    "Batch",
    "QuietSession",
    "as_flushing",
    "autoflush",
    "fail_as_flush",
    "hide_rows",
    "insert_for_keys",
    "invoke_before",
    "is_of_flush",
    "is_set_to_autocommit",
    "isolation_of",
    "listeners_behind",
    "no_rows",
    "prebuffer",
    "registries",
    "restore_key",
    "restore_number",
    "returned_by_default",
    "tables_in_order",
    "when_planned",
]

# From 2.1 on a session flushes before statements on tables, too.
FLUSHES_BEFORE_TABLES = tuple(map(int, sqlalchemy.__version__.split(".")[:2])) >= (2, 1)

_of_cursors: Any = _cursor
_of_mappers: Any = sys.modules[Mapper.__module__]


class _NoSession:
    """Nobody listens to events of it."""


class QuietSession(Session):
    """A session of which no listener hears, whatever class of sessions it listens on.

    An app may listen on `Session` itself, and set up each transaction by the `info` of its own sessions.
    """

    def __init__(self, bind: Connection) -> None:
        listeners: Any = Session.dispatch
        # An instance finds its listeners here, by the class that they are looked up for.
        vars(self)["dispatch"] = listeners._for_class(_NoSession)  # noqa: SLF001
        super().__init__(bind, autoflush=False, join_transaction_mode="rollback_only")


def registries() -> Any:
    """Every registry of mapped classes in this process."""
    return _of_mappers._all_registries()  # noqa: SLF001


@contextmanager
def as_flushing(session: Session) -> Generator[None]:
    """A session that splits readers from writers asks this, as in SQLAlchemy's recipe: inside, it names a writer."""
    any_session: Any = session
    before = any_session._flushing  # noqa: SLF001
    any_session._flushing = True  # noqa: SLF001
    try:
        yield
    finally:
        any_session._flushing = before  # noqa: SLF001


def fail_as_flush(session: Session) -> None:
    """Leave a session as an error in a flush, or in a bulk method, does; while that error is handled."""
    any_session: Any = session
    any_session._autobegin_t()._begin().rollback(_capture_exception=True)  # noqa: SLF001


def autoflush(session: Session) -> None:
    """Flush as a session does before a statement: not where that is off, and not in the middle of another flush."""
    any_session: Any = session
    any_session._autoflush()  # noqa: SLF001


def tables_in_order(mapper: Mapper[Any]) -> list[Any]:
    """The tables of a class's hierarchy in the order in which a flush inserts and updates; it deletes the other way."""
    base: Any = mapper.base_mapper
    return list(base._sorted_tables)  # noqa: SLF001


@dataclass(slots=True, eq=False)
class Batch:
    """States of one hierarchy that a flush writes, or deletes, in one go, in the order in which it does that.

    The events of all of them come before its first statement; `ahead` are those whose event has not come.
    `replaced` are the rows of objects to be deleted that new ones take the place of.
    """

    gone: bool
    states: list[Any]
    ahead: set[Any]
    replaced: list[Any] = field(default_factory=list[Any])

    def met(self, state: Any) -> bool:
        """Note the event of a state; whether it is the last one."""
        self.ahead.discard(state)
        return not self.ahead


def when_planned(flush: Any, tell: Callable[[list[Any], list[Any], list[Batch]], None]) -> None:
    """Call `tell` once a flush knows every object that it deletes, and every one that it may insert or update.

    It is told the objects of both kinds, and the batches that they are written in.

    `flush` is what `before_flush` is given. Orphans, and what goes with them, are found after that event, and before
    the flush sends its first statement.
    """
    kind: Any = flush.__class__
    own: dict[str, Any] = {**vars(flush)}
    of_another: Any = own.get("_generate_actions")
    # No cycle: what the flush has loaded must not outlive it.
    itself: Any = ref(flush)

    def plan_and_tell() -> Any:
        actions: Any = (of_another or partial(kind._generate_actions, itself()))()  # noqa: SLF001
        tell(*_planned(itself()), _batches(itself(), actions))
        return actions

    flush._generate_actions = plan_and_tell  # noqa: SLF001


def _planned(flush: Any) -> tuple[list[Any], list[Any]]:
    gone: list[Any] = []
    kept: list[Any] = []
    for state, (deletes, is_only_listed) in flush.states.items():
        target = state.obj()
        if target is not None and not is_only_listed:
            (gone if deletes else kept).append(target)
    return gone, kept


def _batches(flush: Any, actions: Any) -> list[Batch]:
    """Each hierarchy is written at once, unless rows of it wait for each other; then those are that may go together."""
    levels: dict[Any, int] = {}
    if flush.cycles:
        for level, together in enumerate(topological.sort_as_subsets(flush.dependencies, list(actions))):
            # The actions that write one object have its class besides.
            levels.update((one.state, level) for one in together if hasattr(one, "state") and hasattr(one, "mapper"))
    found: dict[Any, list[Any]] = {}
    for state, (deletes, is_only_listed) in flush.states.items():
        if not is_only_listed:
            base = state.mapper.base_mapper
            alone = None if deletes or base.batch else state
            found.setdefault((base, deletes, levels.get(state), alone), []).append(state)
    return [Batch(deletes, _sorted(base, states), set(states)) for (base, deletes, *_), states in found.items()]


def _sorted(base: Any, states: list[Any]) -> list[Any]:
    fresh, there = ([one for one in states if (one.key is None) is new] for new in (True, False))
    # SQLAlchemy says what is wrong with keys that it cannot sort.
    with contextlib.suppress(TypeError):
        there.sort(key=base._persistent_sortkey_fn)  # noqa: SLF001
    return [*fresh, *there]


def is_of_flush(options: Any, target: Any) -> bool:
    """Whether a statement with these execution options is one that a flush writes rows of an object's hierarchy by."""
    base: Any = sqlalchemy.inspect(target).mapper.base_mapper
    return options.get("compiled_cache") is base._compiled_cache  # noqa: SLF001


def is_set_to_autocommit(connection: Connection) -> bool:
    """Whether the isolation level of a connection, or of its engine, is `AUTOCOMMIT`."""
    asked: Any = connection
    return bool(asked._is_autocommit_isolation())  # noqa: SLF001


def isolation_of(connection: Connection) -> str | None:
    """The isolation level that a connection, or its engine, is set to, or else the database's own."""
    here: Any = connection.get_execution_options().get("isolation_level")
    dialect: Any = connection.engine.dialect
    level: str | None = here or dialect._on_connect_isolation_level or dialect.default_isolation_level  # noqa: SLF001
    return None if level is None else level.upper().replace("_", " ")


def insert_for_keys(state: ORMExecuteState) -> tuple[Result[Any], list[dict[str, Any]]]:
    """Run a bulk INSERT into the several tables of a class: its result, and the rows with their keys.

    SQLAlchemy asks for the keys itself, by which the further tables refer to the first, and writes them into the rows
    that it works on. These are copies, as they are without this.
    """
    given: Any = state.parameters
    several = isinstance(given, list)
    rows: list[dict[str, Any]] = [dict(each) for each in (cast("Any", given) if several else [given])]
    state.parameters = rows if several else rows[0]
    name = "_sa_orm_insert_options"
    options: Any = state.execution_options[name] + {"_return_defaults": True}
    return state.invoke_statement(execution_options={name: options}), rows


def listeners_behind(state: ORMExecuteState) -> list[Any]:
    """The listeners to a statement that come after the one that asks."""
    asked: Any = state
    # As SQLAlchemy's `invoke_statement` finds them.
    return list(asked._remaining_events())  # noqa: SLF001


def invoke_before(state: ORMExecuteState, last: Any) -> Result[Any]:
    """Run a statement with the listeners behind the one that asks, and one more behind all of these."""
    asked: Any = state
    asked._events_todo = [*asked._events_todo, last]  # noqa: SLF001
    return state.invoke_statement()


def no_rows() -> Result[Any]:
    """What SQLAlchemy gives for its bulk INSERT without `RETURNING`."""
    result: Result[Any] = _of_cursors.null_dml_result()
    return result


def prebuffer(result: Any) -> None:
    """Load what an ORM's result holds now, as SQLAlchemy does for its asynchronous sessions."""
    is_lazy = isinstance(result, ChunkedIteratorResult)
    if not is_lazy:
        return
    lazy: Any = cast("Any", result)
    loaded: list[Any] = list(lazy.chunks(None))

    def chunks(_: object) -> Iterator[Any]:
        return iter(loaded)

    lazy.chunks = chunks
    lazy.iterator = chain.from_iterable(loaded)


def hide_rows(result: Any) -> None:
    """Give a result the face that it has without `RETURNING`: no rows, and the same count."""
    asked: Any = getattr(result.context.compiled, "_annotations", None) or {}
    if asked.get("synchronize_session") == "fetch":
        # It has those keys then without us.
        return
    result.context.returned_default_rows = None
    result.context._is_explicit_returning = False  # noqa: SLF001
    result._metadata = _of_cursors._NO_RESULT_METADATA  # noqa: SLF001
    result.cursor_strategy = _of_cursors._NO_CURSOR_DML  # noqa: SLF001
    result._reset_memoizations()  # noqa: SLF001


def _context_of(result: Any) -> Any:
    """How the statement of a driver's result was run; None for any other result."""
    is_one = isinstance(result, CursorResult)
    return cast("Any", result).context if is_one else None


def returned_by_default(result: Any) -> list[Any] | None:
    """The rows of the `RETURNING` that SQLAlchemy itself adds to an INSERT; None where it has not added one."""
    context = _context_of(result)
    if context is None or not context._is_implicit_returning:  # noqa: SLF001
        return None
    return list(context.returned_default_rows or ())


def restore_number(result: Any) -> None:
    """Give the result of an INSERT the last row's number, where a driver does not say it because rows are returned."""
    context = _context_of(result)
    if context is None or context.dialect.name != "sqlite":
        return
    number = context.get_lastrowid()
    if number is None or number < 0:
        number = context.root_connection.exec_driver_sql("SELECT last_insert_rowid()").scalar()
        context.get_lastrowid = lambda: number


def restore_key(result: Any) -> None:
    """Give the result of an INSERT of one row the key that it has without `RETURNING`: by the last row's number."""
    context = _context_of(result)
    if context is None:
        return
    get = context.compiled._inserted_primary_key_from_lastrowid_getter  # noqa: SLF001
    context.inserted_primary_key_rows = [get(context.get_lastrowid(), context.compiled_parameters[0])]
