"""SQL that renders a column into a tag as `render_value` renders the value that a session reads: pure text."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, cast

from sqlalchemy import (
    Boolean,
    DateTime,
    Dialect,
    Enum,
    Integer,
    Interval,
    Numeric,
    String,
    Time,
    Uuid,
)

from fastapi_cacheinval import render_value

__all__ = ["HELPER", "as_text", "literal"]

# What a session reads of a `Numeric` without a scale has ten digits after the point.
_SCALE = 10

# Of PostgreSQL; `$1` is the value. The function that calls it has set what times look like as text. Of a float it
# writes more digits than are needed now and then, and not where it makes a `numeric` of it.
HELPER = """
SELECT CASE
    WHEN jsonb_typeof(to_jsonb($1)) = 'number' THEN trim_scale(CASE
        WHEN pg_typeof($1)::text <> 'double precision' THEN $1::text::numeric
        WHEN $1::text::float8::numeric::float8 = $1::text::float8 THEN $1::text::float8::numeric
        ELSE $1::text::numeric
    END)::text
    WHEN jsonb_typeof(to_jsonb($1)) = 'boolean' THEN initcap($1::text)
    ELSE CASE pg_typeof($1)::text
        WHEN 'bytea' THEN encode($1::text::bytea, 'hex')
        WHEN 'inet' THEN abbrev($1::text::inet)
        WHEN 'interval' THEN trim_scale(extract(epoch FROM $1::text::interval)::numeric)::text
        WHEN 'timestamp without time zone' THEN padded
        WHEN 'time without time zone' THEN padded
        WHEN 'timestamp with time zone' THEN zoned
        WHEN 'time with time zone' THEN zoned
        ELSE $1::text
    END
END
FROM (SELECT padded, CASE WHEN padded ~ '[+-][0-9][0-9]$' THEN padded || ':' || '00' ELSE padded END AS zoned
FROM (SELECT coalesce(
    regexp_replace(plain, '[.][0-9]+', '.' || rpad(substring(plain FROM '[.]([0-9]+)'), 6, '0')), plain
) AS padded FROM (SELECT CASE pg_typeof($1)::text
    WHEN 'time with time zone' THEN ($1::text::timetz AT TIME ZONE 'UTC')::text ELSE $1::text
END AS plain) AS texts) AS fractions) AS zones
"""

# Of SQLite; `v` is the value. The fewest digits that stand for a number, of three lengths, then without exponent.
_SHORTEST = " ".join(
    f"WHEN CAST(printf('{length}', abs(v)) AS REAL) = abs(v) THEN printf('{length}', abs(v))"
    for length in ("%.14e", "%!.15e")
)
_REAL = f"""(SELECT CASE
    WHEN abs(v) > 1.7976931348623157e308 THEN iif(v < 0, '-Infinity', 'Infinity')
    WHEN abs(v) < 9007199254740992 AND v = CAST(v AS INTEGER) THEN CAST(CAST(v AS INTEGER) AS TEXT)
    ELSE iif(v < 0, '-', '') || CASE
        WHEN e < 0 THEN '0.' || substr(printf('%0330d', 0), 1, -e - 1) || d
        WHEN e + 1 >= length(d) THEN d || substr(printf('%0330d', 0), 1, e + 1 - length(d))
        ELSE substr(d, 1, e + 1) || '.' || substr(d, e + 2) END
    END FROM (SELECT rtrim(replace(substr(s, 1, instr(s, 'e') - 1), '.', ''), '0') AS d,
        CAST(substr(s, instr(s, 'e') + 1) AS INTEGER) AS e
        FROM (SELECT CASE {_SHORTEST} ELSE printf('%!.16e', abs(v)) END AS s)))"""
_ANY = f"CASE typeof(v) WHEN 'real' THEN {_REAL} WHEN 'blob' THEN lower(hex(v)) ELSE CAST(v AS TEXT) END"
_BOOLEAN = "CASE v WHEN 0 THEN 'False' WHEN 1 THEN 'True' ELSE CAST(v AS TEXT) END"
_UUID = "CASE length(v) WHEN 32 THEN lower({}) ELSE CAST(v AS TEXT) END".format(
    " || '-' || ".join(f"substr(v, {first}, {count})" for first, count in ((1, 8), (9, 4), (13, 4), (17, 4), (21, 12)))
)
_FRACTION = "iif(CAST(substr(v, {next}) AS INTEGER), '.' || substr(substr(v, {next}) || '000000', 1, 6), '')"
_TIME = "substr(v, 1, 8) || " + _FRACTION.format(next=10)
_MOMENT = "substr(replace(v, 'T', ' '), 1, 19) || " + _FRACTION.format(next=21)
# It is kept as the moment that is so much after the epoch.
_SECONDS = """(SELECT iif(m < 0, '-', '')
        || rtrim(rtrim(printf('%d.%06d', abs(m) / 1000000, abs(m) % 1000000), '0'), '.')
    FROM (SELECT CAST(strftime('%s', v) AS INTEGER) * 1000000 + CAST(substr(v, 21) AS INTEGER) AS m))"""
_NUMERIC = """(SELECT CASE n WHEN '-0' THEN '0' ELSE n END
    FROM (SELECT rtrim(rtrim(printf('%.{scale}f', v), '0'), '.') AS n))"""


def as_text(value: str, kind: Any, dialect: Dialect, helper: str) -> str:
    """An expression for the text of another, `value`; NULL where the tag is left out.

    `kind` is the SQLAlchemy type of the column, None where that is not known; `helper` is the name under which
    PostgreSQL has a function of the text `HELPER`.
    """
    if isinstance(kind, Enum):
        return _of_members(value, kind, dialect)
    postgresql = dialect.name == "postgresql"
    if isinstance(kind, Integer | String) or (postgresql and isinstance(kind, Uuid)):
        return f"{value}::text" if postgresql else f"CAST({value} AS TEXT)"
    if postgresql:
        return f"{helper}({value})"
    match kind:
        case Boolean():
            text = _BOOLEAN
        case Uuid():
            text = _UUID
        case DateTime():
            text = _MOMENT
        case Time():
            text = _TIME
        case Interval():
            text = _SECONDS
        case Numeric() if kind.asdecimal:
            text = _NUMERIC.format(scale=_SCALE if kind.scale is None else kind.scale)
        case _:
            text = _ANY
    return f"(SELECT CASE WHEN v IS NOT NULL THEN {text} END FROM (SELECT {value} AS v))"


def _of_members(value: str, kind: Enum, dialect: Dialect) -> str:
    """The database has the names of members, and a session reads the members, which render as their values."""
    text = f"{value}::text" if dialect.name == "postgresql" else f"CAST({value} AS TEXT)"
    member_of: Any = cast("Any", kind).result_processor(dialect, None)
    cases: list[str] = []
    for name in cast("Iterable[str]", kind.enums):
        rendered = render_value(name if member_of is None else member_of(name))
        backslashes = dialect.name == "postgresql"
        told = "NULL" if rendered is None else literal(rendered, backslashes=backslashes)
        cases.append(f"WHEN {literal(name, backslashes=backslashes)} THEN {told}")
    return f"CASE {text} {' '.join(cases)} ELSE {text} END"


def literal(text: str, *, backslashes: bool) -> str:
    """Text as a string of SQL, in parts where it has colons, which SQLAlchemy takes for the start of a parameter."""
    pieces = re.findall(r"[^:]*:|[^:]+", text) or [""]
    return " || ".join(_piece(piece, backslashes=backslashes) for piece in pieces)


def _piece(text: str, *, backslashes: bool) -> str:
    inside = text.replace("'", "''")
    if backslashes and "\\" in inside:
        # The same whatever standard_conforming_strings says.
        return "E'" + inside.replace("\\", "\\\\") + "'"
    return f"'{inside}'"
