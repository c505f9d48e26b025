"""Values as they come from a client, stand in a database and are told by Debezium, with the one text that each has."""

from __future__ import annotations

import base64
import enum
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

from sqlalchemy import (
    Boolean,
    Column,
    Date,
    DateTime,
    Enum,
    Float,
    Integer,
    Interval,
    LargeBinary,
    MetaData,
    Numeric,
    String,
    Table,
    Text,
    Time,
    Uuid,
)

__all__ = ["CASES", "ZONED", "Case", "table_of"]


class Colour(enum.Enum):
    RED = "red"
    ODD = "o'\\dd:x"


class Size(enum.IntEnum):
    LARGE = 3


@dataclass(frozen=True)
class Case:
    """A value in all its forms; `debezium` is its schema and its form in JSON, None where Debezium cannot know."""

    kind: Any
    value: Any
    annotation: Any
    query: str | None
    debezium: tuple[Any, Any] | None
    text: str | None


def _of(name: str, base: str = "int64") -> dict[str, Any]:
    return {"type": base, "name": name}


def _decimal(unscaled: int, scale: int) -> tuple[Any, Any]:
    data = unscaled.to_bytes(16, "big", signed=True)
    schema = {**_of("org.apache.kafka.connect.data.Decimal", "bytes"), "parameters": {"scale": str(scale)}}
    return schema, base64.b64encode(data).decode()


def _micros(value: datetime) -> int:
    return (value - datetime.fromisoformat("1970-01-01")) // timedelta(microseconds=1)


ID = UUID("0a8f7f4e-1111-4222-8333-9bcdef012345")
MOMENT = datetime.fromisoformat("2026-01-02 03:04:05")
FRACTION = datetime.fromisoformat("2026-01-02 03:04:05.5")
PLAIN = {"type": "string"}
DOUBLE = {"type": "double"}

CASES: dict[str, Case] = {
    "nothing": Case(Integer(), None, int | None, None, ({"type": "int32"}, None), None),
    "empty": Case(String(9), "", str, "", (PLAIN, ""), "v:"),
    "text": Case(String(9), "30.50", str, "30.50", (PLAIN, "30.50"), "v:30.50"),
    "text like a moment": Case(Text(), "2026-01-02 03:04:05.000000", str, "2026-01-02 03:04:05.000000",
        (PLAIN, "2026-01-02 03:04:05.000000"), "v:2026-01-02%2003:04:05.000000"),
    "hostile text": Case(Text(), "Ö 'x' \\ %s", str, "Ö 'x' \\ %s", (PLAIN, "Ö 'x' \\ %s"), "v:%C3%96%20'x'%20\\%20%s"),
    "whole": Case(Integer(), 42, int, "042", ({"type": "int32"}, 42), "v:42"),
    "true": Case(Boolean(), True, bool, "yes", ({"type": "boolean"}, True), "v:True"),
    "false": Case(Boolean(), False, bool, "0", ({"type": "boolean"}, False), "v:False"),
    "price": Case(Numeric(10, 2), Decimal("30.50"), Decimal, "30.5", _decimal(3050, 2), "v:30.5"),
    "whole price": Case(Numeric(10, 2), Decimal("30.00"), Decimal, "30", _decimal(3000, 2), "v:30"),
    "nothing to pay": Case(Numeric(10, 2), Decimal("0.00"), Decimal, "-0.0", _decimal(0, 2), "v:0"),
    "hundreds": Case(Numeric(10, 2), Decimal(300), Decimal, "3E+2", _decimal(30000, 2), "v:300"),
    "debt": Case(Numeric(10, 2), Decimal("-1.05"), Decimal, "-1.050", _decimal(-105, 2), "v:-1.05"),
    "price as float": Case(Numeric(10, 2, asdecimal=False), 30.5, float, "30.50", (DOUBLE, 30.5), "v:30.5"),
    "float": Case(Float(53), 0.1, float, "0.10", (DOUBLE, 0.1), "v:0.1"),
    "whole float": Case(Float(53), 42.0, float, "42", (DOUBLE, 42.0), "v:42"),
    "tiny float": Case(Float(53), 1.5e-7, float, "1.5e-7", (DOUBLE, 1.5e-7), "v:0.00000015"),
    "huge float": Case(Float(53), -1.25e22, float, "-1.25e22", (DOUBLE, -1.25e22), "v:-12500000000000000000000"),
    "date": Case(Date(), date(2026, 1, 2), date, "2026-01-02", (_of("io.debezium.time.Date", "int32"), 20455),
        "v:2026-01-02"),
    "moment": Case(DateTime(), MOMENT, datetime, "2026-01-02T03:04:05",
        (_of("io.debezium.time.MicroTimestamp"), _micros(MOMENT)), "v:2026-01-02%2003:04:05"),
    "fraction": Case(DateTime(), FRACTION, datetime, "2026-01-02T03:04:05.5",
        (_of("io.debezium.time.Timestamp"), _micros(FRACTION) // 1000), "v:2026-01-02%2003:04:05.500000"),
    "time": Case(Time(), time(3, 4, 5), time, "03:04:05",
        (_of("io.debezium.time.MicroTime"), 11_045_000_000), "v:03:04:05"),
    "time's fraction": Case(Time(), time(3, 4, 5, 250_000), time, "03:04:05.25",
        (_of("io.debezium.time.NanoTime"), 11_045_250_000_000), "v:03:04:05.250000"),
    "duration": Case(Interval(), timedelta(days=1, hours=12), timedelta, "P1DT12H",
        (_of("io.debezium.time.MicroDuration"), 129_600_000_000), "v:129600"),
    "negative duration": Case(Interval(), timedelta(milliseconds=-1500), timedelta, "-PT1.5S",
        (_of("io.debezium.time.MicroDuration"), -1_500_000), "v:-1.5"),
    "bytes": Case(LargeBinary(), b"abc", bytes, "abc", ({"type": "bytes"}, "YWJj"), "v:616263"),
    "uuid": Case(Uuid(), ID, UUID, str(ID).upper(), (_of("io.debezium.data.Uuid", "string"), str(ID)), f"v:{ID}"),
    "enum": Case(Enum(Colour), Colour.RED, Colour, "red", None, "v:red"),
    "hostile enum": Case(Enum(Colour), Colour.ODD, Colour, "o'\\dd:x", None, "v:o'\\dd:x"),
    "enum of int": Case(Enum(Size), Size.LARGE, Size, "3", None, "v:3"),
}  # fmt: skip

# SQLite has no time zones.
ZONED: dict[str, Case] = {
    "zoned": Case(
        DateTime(timezone=True), datetime(2026, 1, 2, 3, 4, 5, 500_000, tzinfo=UTC), datetime,
        "2026-01-02T05:04:05.5+02:00", (_of("io.debezium.time.ZonedTimestamp", "string"), "2026-01-02T04:04:05.5+01:00"),
        "v:2026-01-02%2003:04:05.500000+00:00",
    ),
    "zoned time": Case(
        Time(timezone=True), time(5, 4, 5, 500_000, tzinfo=timezone(timedelta(hours=2))), time, "05:04:05.5+02:00",
        (_of("io.debezium.time.ZonedTime", "string"), "03:04:05.5Z"), "v:03:04:05.500000+00:00",
    ),
}  # fmt: skip


def table_of(kind: Any, metadata: MetaData) -> Table:
    """A table with a column of a type."""
    return Table("thing", metadata, Column("id", Integer, primary_key=True), Column("value", kind))
