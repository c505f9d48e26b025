"""SQL of triggers that fill the outbox for programs that know nothing of it: pure text."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from sqlalchemy.dialects import postgresql, sqlite

from fastapi_cacheinval import ConfigurationError, TagTemplate
from fastapi_cacheinval.contrib.outbox.rendering import HELPER, as_text, literal

__all__ = ["Dialect", "Operation", "Triggers", "triggers_for"]

Dialect = Literal["postgresql", "sqlite"]
Operation = Literal["INSERT", "UPDATE", "DELETE"]

_OPERATIONS: Final[tuple[Operation, ...]] = ("INSERT", "UPDATE", "DELETE")
_ROWS: dict[Operation, tuple[str, ...]] = {"INSERT": ("NEW",), "UPDATE": ("OLD", "NEW"), "DELETE": ("OLD",)}
# PostgreSQL cuts longer names, in bytes.
_LONGEST_NAME = 63
# SQLite's functions take 127 arguments at most, and an update has two rows.
_MOST_TEMPLATES = 60
# How PostgreSQL writes values as text is the same for every program then.
_SETTINGS = "SET datestyle = 'ISO, YMD' SET timezone = 'UTC' SET intervalstyle = 'postgres' SET extra_float_digits = 1"

# The text of an expression that stands for a column of the name.
_Column: TypeAlias = Callable[[str, str], str]


@dataclass(frozen=True, slots=True)
class Triggers:
    """Statements that make the triggers of one table, and those that take them away, one command each.

    Either may be run again. `str()` and `script` are `create` as one text for `psql` or `sqlite3`.
    """

    create: tuple[str, ...]
    drop: tuple[str, ...]

    @property
    def script(self) -> str:
        """What makes them, as one text."""
        return "\n".join(f"{statement};" for statement in self.create) + "\n"

    def __str__(self) -> str:
        return self.script


@dataclass(frozen=True, slots=True)
class _Names:
    """The quoted names of a pair of tables, and of what is made for it."""

    outbox: str
    table: str
    function: str
    helper: str
    triggers: dict[str, str]


def triggers_for(
    outbox: str,
    outbox_schema: str | None,
    table: str,
    schema: str | None,
    *,
    columns: Mapping[str, Any] | None,
    tags: tuple[str, ...],
    dialect: Dialect,
    operations: tuple[Operation, ...],
    soft: bool,
    truncate: tuple[str, ...] | None,
    channel: str | None,
) -> Triggers:
    """See `Outbox.triggers`; `columns` are those of the table with their types, where they are known."""
    if dialect not in ("postgresql", "sqlite"):
        raise ConfigurationError(f"Triggers are made for postgresql and for sqlite, not for {dialect!r}.")
    if not operations or not set(operations) <= set(_OPERATIONS):
        raise ConfigurationError(f"The operations are some of {', '.join(_OPERATIONS)}, not {operations!r}.")
    if not 1 <= len(tags) <= _MOST_TEMPLATES:
        raise ConfigurationError(f"Triggers need 1 to {_MOST_TEMPLATES} templates of tags, not {len(tags)}.")
    templates = tuple(TagTemplate.parse(tag, names="columns") for tag in tags)
    wide = None if truncate is None else tuple(TagTemplate.parse(tag, names=()) for tag in truncate)
    named = {column for template in templates for column in template.names}
    if columns is not None and not named <= columns.keys():
        raise ConfigurationError(f"The table {table!r} has no column {', '.join(sorted(named - columns.keys()))}.")
    ordered: tuple[Operation, ...] = tuple(each for each in _OPERATIONS if each in operations)
    names = _names(outbox, outbox_schema, table, schema, dialect)
    read = ", ".join(f"{names.table}.{_quoted(each)}" for each in sorted(named))
    probe = f"SELECT {read or '1'} FROM {names.table} LIMIT 0"
    there: Any = sqlite.dialect() if dialect == "sqlite" else postgresql.dialect()  # type: ignore[no-untyped-call]

    def column(value: str, name: str) -> str:
        return as_text(value, None if columns is None else columns[name], there, names.helper)

    if dialect == "sqlite":
        return _for_sqlite(names, ordered, templates, column, soft=soft, probe=probe)
    return _for_postgresql(names, ordered, templates, column, wide, soft=soft, probe=probe, channel=channel)


# -- PostgreSQL -------------------------------------------------------------------------------------


def _for_postgresql(
    names: _Names,
    operations: tuple[Operation, ...],
    templates: tuple[TagTemplate, ...],
    column: _Column,
    wide: tuple[TagTemplate, ...] | None,
    *,
    soft: bool,
    probe: str,
    channel: str | None,
) -> Triggers:
    # In each kind of trigger the row that is not there is null, and so is a tag with a column of it.
    rows = [row for row in ("OLD", "NEW") if any(row in _ROWS[operation] for operation in operations)]
    changed = _postgresql_tags(_rendered(templates, rows, column, backslashes=True))
    truncated = "'[]'" if wide is None else _postgresql_tags(_rendered(wide, ["NEW"], column, backslashes=True))
    body = _body(names, changed, truncated, everything=wide is None, soft=soft, channel=channel)
    row, whole = names.triggers["row"], names.triggers["truncate"]
    dropped = (
        f"DROP TRIGGER IF EXISTS {row} ON {names.table}",
        f"DROP TRIGGER IF EXISTS {whole} ON {names.table}",
    )
    return Triggers(
        create=(
            # A trigger's function is not checked before it runs, inside the writes of others.
            probe,
            f'SELECT "id", "tags", "soft", "everything" FROM {names.outbox} LIMIT 0',
            *_functions(names, body),
            *dropped,
            (
                f"CREATE TRIGGER {row} AFTER {' OR '.join(operations)} ON {names.table}\n"
                f"FOR EACH ROW EXECUTE FUNCTION {names.function}()"
            ),
            (
                f"CREATE TRIGGER {whole} AFTER TRUNCATE ON {names.table}\n"
                f"FOR EACH STATEMENT EXECUTE FUNCTION {names.function}()"
            ),
        ),
        drop=(
            *dropped,
            f"DROP FUNCTION IF EXISTS {names.function}()",
            f"DROP FUNCTION IF EXISTS {names.helper}(anyelement)",
        ),
    )


def _body(names: _Names, changed: str, truncated: str, *, everything: bool, soft: bool, channel: str | None) -> str:
    """What the function of the triggers does: a row of the outbox, and a word to who listens."""
    into = f'INSERT INTO {names.outbox} ("tags", "soft", "everything") VALUES'
    notify = "" if channel is None else f"    PERFORM pg_notify({literal(channel, backslashes=True)}, '');\n"
    return (
        "\nBEGIN\n"
        "    IF TG_OP = 'TRUNCATE' THEN\n"
        f"        {into} ({truncated}, {str(soft).lower()}, {str(everything).lower()});\n"
        "    ELSE\n"
        f"        {into} ({changed}, {str(soft).lower()}, false);\n"
        "    END IF;\n"
        f"{notify}"
        "    RETURN NULL;\n"
        "END\n"
    )


def _functions(names: _Names, body: str) -> tuple[str, ...]:
    """Statements that make the function of the triggers, and before it the one that it needs, if it does."""
    helper = (
        (
            f"CREATE OR REPLACE FUNCTION {names.helper}(anyelement) RETURNS text LANGUAGE sql STABLE\n"
            f"AS $text${HELPER}$text$"
        ),
        f"REVOKE ALL ON FUNCTION {names.helper}(anyelement) FROM PUBLIC",
    )
    fence = _fence(body)
    return (
        *(helper if names.helper in body else ()),
        # Who may write to the table need not be allowed to write to the outbox: the function runs with its owner's
        # rights, and finds nothing but what is named in full and the built-in functions.
        (
            f"CREATE OR REPLACE FUNCTION {names.function}() RETURNS trigger LANGUAGE plpgsql\n"
            f"SECURITY DEFINER SET search_path = pg_catalog, pg_temp {_SETTINGS} AS {fence}{body}{fence}"
        ),
        f"REVOKE ALL ON FUNCTION {names.function}() FROM PUBLIC",
    )


def _postgresql_tags(rendered: list[str]) -> str:
    # Not json_build_array, which takes a hundred arguments at most.
    return f"array_to_json(ARRAY[{', '.join(rendered)}]::text[])::text"


def _fence(body: str) -> str:
    """Dollar quotes that do not occur in what they enclose."""
    number = 0
    while (fence := f"$cacheinval{number or ''}$") in body:
        number += 1
    return fence


# -- SQLite -----------------------------------------------------------------------------------------


def _for_sqlite(
    names: _Names,
    operations: tuple[Operation, ...],
    templates: tuple[TagTemplate, ...],
    column: _Column,
    *,
    soft: bool,
    probe: str,
) -> Triggers:
    def one(operation: Operation) -> str:
        rendered = _rendered(templates, _ROWS[operation], column, backslashes=False)
        values = f"json_array({', '.join(rendered)}), {int(soft)}"
        return (
            f"CREATE TRIGGER {names.triggers[operation]} AFTER {operation} ON {names.table}\nBEGIN\n"
            f'    INSERT INTO {names.outbox} ("tags", "soft") VALUES ({values});\nEND'
        )

    dropped = tuple(f"DROP TRIGGER IF EXISTS {names.triggers[operation]}" for operation in _OPERATIONS)
    there = f'SELECT {names.outbox}."id" FROM {names.outbox} LIMIT 0'
    return Triggers(create=(probe, there, *dropped, *(one(operation) for operation in operations)), drop=dropped)


# -- names and templates ----------------------------------------------------------------------------


def _names(outbox: str, outbox_schema: str | None, table: str, schema: str | None, dialect: Dialect) -> _Names:
    if dialect == "sqlite" and (outbox_schema or schema):
        raise ConfigurationError("A trigger of SQLite stays within one database: there are no schemas.")
    stem = f"{outbox}_of_{table}"
    inside = "" if schema is None else f"{_quoted(schema)}."
    there = table if schema is None else f"{schema}.{table}"
    kinds = ("row", "truncate") if dialect == "postgresql" else _OPERATIONS
    if dialect == "postgresql":
        # The function has no search path to find it by.
        outbox_schema = outbox_schema or "public"
    return _Names(
        outbox=(f"{_quoted(outbox_schema)}." if outbox_schema else "") + _quoted(outbox),
        table=inside + _quoted(table),
        function=inside + _quoted(_short(stem)),
        # The trigger's function has no search path to find it by.
        helper=f"{_quoted(outbox_schema or 'public')}.{_quoted(_short(f'{outbox}_of_{there}_text'))}",
        triggers={kind: _quoted(_short(f"{stem}_{kind.lower()}")) for kind in kinds},
    )


def _short(name: str) -> str:
    if len(name.encode()) <= _LONGEST_NAME:
        return name
    return f"cacheinval_{hashlib.sha256(name.encode()).hexdigest()[:32]}"


def _quoted(name: str) -> str:
    """An identifier in quotes."""
    if not name or "\0" in name or ":" in name or len(name.encode()) > _LONGEST_NAME:
        # SQLAlchemy and Alembic take what follows a colon for a parameter.
        raise ConfigurationError(
            f"A trigger can be made for names of 1 to {_LONGEST_NAME} bytes without a colon: {name!r}."
        )
    return '"' + name.replace('"', '""') + '"'


def _rendered(
    templates: tuple[TagTemplate, ...], rows: Iterable[str], column: _Column, *, backslashes: bool
) -> list[str]:
    """The templates as expressions of SQL, for each row; what names no column once. NULL makes a whole tag NULL."""
    found: dict[str, None] = {}
    for row in rows:
        for template in templates:
            terms: list[str] = []
            for text, name in template.parts:
                if text:
                    terms.append(literal(text, backslashes=backslashes))
                if name is not None:
                    terms.append(column(f"{row}.{_quoted(name)}", name))
            found[" || ".join(terms)] = None
    return list(found)
