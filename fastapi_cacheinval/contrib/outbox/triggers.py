"""SQL of triggers that fill the outbox for programs that know nothing of it: pure text."""

from __future__ import annotations

import hashlib
import re
import string
from dataclasses import dataclass
from typing import Final, Literal

from fastapi_cacheinval import ConfigurationError

__all__ = ["Dialect", "Operation", "Triggers", "triggers_for"]

Dialect = Literal["postgresql", "sqlite"]
Operation = Literal["INSERT", "UPDATE", "DELETE"]

_OPERATIONS: Final[tuple[Operation, ...]] = ("INSERT", "UPDATE", "DELETE")
_ROWS: dict[Operation, tuple[str, ...]] = {"INSERT": ("NEW",), "UPDATE": ("OLD", "NEW"), "DELETE": ("OLD",)}
# PostgreSQL cuts longer names, in bytes.
_LONGEST_NAME = 63
_LONGEST_TAG = 1_024
# SQLite's functions take 127 arguments at most, and an update has two rows.
_MOST_TEMPLATES = 60
_PRINTABLE = re.compile(r"[\x21-\x7e]*\Z")


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
    triggers: dict[str, str]


def triggers_for(
    outbox: str,
    outbox_schema: str | None,
    table: str,
    schema: str | None,
    *,
    columns: frozenset[str] | None,
    tags: tuple[str, ...],
    dialect: Dialect,
    operations: tuple[Operation, ...],
    soft: bool,
    truncate: tuple[str, ...] | None,
    channel: str | None,
) -> Triggers:
    """See `Outbox.triggers`; `columns` are those of the table where they are known."""
    if dialect not in ("postgresql", "sqlite"):
        raise ConfigurationError(f"Triggers are made for postgresql and for sqlite, not for {dialect!r}.")
    if not operations or not set(operations) <= set(_OPERATIONS):
        raise ConfigurationError(f"The operations are some of {', '.join(_OPERATIONS)}, not {operations!r}.")
    if not 1 <= len(tags) <= _MOST_TEMPLATES:
        raise ConfigurationError(f"Triggers need 1 to {_MOST_TEMPLATES} templates of tags, not {len(tags)}.")
    templates = tuple(_parsed(tag) for tag in tags)
    wide = None if truncate is None else tuple(_parsed(tag) for tag in truncate)
    named = {column for parts in templates for _, column in parts if column is not None}
    if columns is not None and not named <= columns:
        raise ConfigurationError(f"The table {table!r} has no column {', '.join(sorted(named - columns))}.")
    if wide is not None and any(column is not None for parts in wide for _, column in parts):
        raise ConfigurationError("A TRUNCATE has no row: its tags can have no columns in braces.")
    ordered: tuple[Operation, ...] = tuple(each for each in _OPERATIONS if each in operations)
    names = _names(outbox, outbox_schema, table, schema, dialect)
    read = ", ".join(f"{names.table}.{_quoted(each)}" for each in sorted(named))
    probe = f"SELECT {read or '1'} FROM {names.table} LIMIT 0"
    if dialect == "sqlite":
        return _for_sqlite(names, ordered, templates, soft=soft, probe=probe)
    return _for_postgresql(names, ordered, templates, wide, soft=soft, probe=probe, channel=channel)


# -- PostgreSQL -------------------------------------------------------------------------------------


def _for_postgresql(
    names: _Names,
    operations: tuple[Operation, ...],
    templates: tuple[_Parts, ...],
    wide: tuple[_Parts, ...] | None,
    *,
    soft: bool,
    probe: str,
    channel: str | None,
) -> Triggers:
    # In each kind of trigger the row that is not there is null, and so is a tag with a column of it.
    rows = [row for row in ("OLD", "NEW") if any(row in _ROWS[operation] for operation in operations)]
    changed = _postgresql_tags(_rendered(templates, rows, "{row}.{column}::text", backslashes=True))
    truncated = "'[]'" if wide is None else _postgresql_tags(_rendered(wide, ["NEW"], "", backslashes=True))
    everything, softly = str(wide is None).lower(), str(soft).lower()
    into = f'INSERT INTO {names.outbox} ("tags", "soft", "everything") VALUES'
    notify = "" if channel is None else f"    PERFORM pg_notify({_literal(channel, backslashes=True)}, '');\n"
    body = (
        "\nBEGIN\n"
        "    IF TG_OP = 'TRUNCATE' THEN\n"
        f"        {into} ({truncated}, {softly}, {everything});\n"
        "    ELSE\n"
        f"        {into} ({changed}, {softly}, false);\n"
        "    END IF;\n"
        f"{notify}"
        "    RETURN NULL;\n"
        "END\n"
    )
    fence = _fence(body)
    # Who may write to the table need not be allowed to write to the outbox: the function runs with its owner's rights,
    # and finds nothing but what is named in full and the built-in functions.
    function = (
        f"CREATE OR REPLACE FUNCTION {names.function}() RETURNS trigger LANGUAGE plpgsql\n"
        f"SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS {fence}{body}{fence}"
    )
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
            function,
            f"REVOKE ALL ON FUNCTION {names.function}() FROM PUBLIC",
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
        drop=(*dropped, f"DROP FUNCTION IF EXISTS {names.function}()"),
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
    names: _Names, operations: tuple[Operation, ...], templates: tuple[_Parts, ...], *, soft: bool, probe: str
) -> Triggers:
    def one(operation: Operation) -> str:
        rendered = _rendered(templates, _ROWS[operation], "CAST({row}.{column} AS TEXT)", backslashes=False)
        values = f"json_array({', '.join(rendered)}), {int(soft)}"
        return (
            f"CREATE TRIGGER {names.triggers[operation]} AFTER {operation} ON {names.table}\nBEGIN\n"
            f'    INSERT INTO {names.outbox} ("tags", "soft") VALUES ({values});\nEND'
        )

    dropped = tuple(f"DROP TRIGGER IF EXISTS {names.triggers[operation]}" for operation in _OPERATIONS)
    there = f'SELECT {names.outbox}."id" FROM {names.outbox} LIMIT 0'
    return Triggers(create=(probe, there, *dropped, *(one(operation) for operation in operations)), drop=dropped)


# -- names, templates and literals ------------------------------------------------------------------

_Parts = tuple[tuple[str, str | None], ...]


def _names(outbox: str, outbox_schema: str | None, table: str, schema: str | None, dialect: Dialect) -> _Names:
    if dialect == "sqlite" and (outbox_schema or schema):
        raise ConfigurationError("A trigger of SQLite stays within one database: there are no schemas.")
    stem = f"{outbox}_of_{table}"
    inside = "" if schema is None else f"{_quoted(schema)}."
    kinds = ("row", "truncate") if dialect == "postgresql" else _OPERATIONS
    if dialect == "postgresql":
        # The function has no search path to find it by.
        outbox_schema = outbox_schema or "public"
    return _Names(
        outbox=(f"{_quoted(outbox_schema)}." if outbox_schema else "") + _quoted(outbox),
        table=inside + _quoted(table),
        function=inside + _quoted(_short(stem)),
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


def _literal(text: str, *, backslashes: bool) -> str:
    """Text as a string of SQL, in parts where it has colons, which SQLAlchemy takes for the start of a parameter."""
    pieces = re.findall(r"[^:]*:|[^:]+", text) or [""]
    return " || ".join(_piece(piece, backslashes=backslashes) for piece in pieces)


def _piece(text: str, *, backslashes: bool) -> str:
    inside = text.replace("'", "''")
    if backslashes and "\\" in inside:
        # The same whatever standard_conforming_strings says.
        return "E'" + inside.replace("\\", "\\\\") + "'"
    return f"'{inside}'"


def _parsed(template: str) -> _Parts:
    """An author's template as literal parts, each with the column after it or None."""
    if not isinstance(template, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigurationError(f"A tag is a str, not {type(template).__name__}: {template!r}.")
    try:
        pieces = list(string.Formatter().parse(template))
    except ValueError as error:
        raise ConfigurationError(f"The tag template {template!r} has malformed braces: {error}.") from None
    if not pieces or len(template) > _LONGEST_TAG:
        raise ConfigurationError(f"A tag must not be empty or over {_LONGEST_TAG} bytes: {template[:80]!r}.")
    for literal, column, spec, conversion in pieces:
        if column == "" or spec or conversion:
            raise ConfigurationError(f"The tag template {template!r} may hold only names of columns in braces.")
        if not _PRINTABLE.match(literal):
            raise ConfigurationError(f"The tag {template!r} must be printable ASCII without white space.")
    return tuple((literal, column) for literal, column, _, _ in pieces)


def _rendered(
    templates: tuple[_Parts, ...], rows: list[str] | tuple[str, ...], value: str, *, backslashes: bool
) -> list[str]:
    """The templates as expressions of SQL, for each row; what names no column once. NULL makes a whole tag NULL."""
    found: dict[str, None] = {}
    for row in rows:
        for parts in templates:
            terms: list[str] = []
            for literal, column in parts:
                if literal:
                    terms.append(_literal(literal, backslashes=backslashes))
                if column is not None:
                    terms.append(value.format(row=row, column=_quoted(column)))
            found[" || ".join(terms)] = None
    return list(found)
