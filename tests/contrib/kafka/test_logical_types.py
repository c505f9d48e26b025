"""What Debezium writes of each type of each database, by its default settings and by others, is the text of a page's tag.

The examples follow the tables of data types in the documentation of the connectors.
"""

from __future__ import annotations

import base64
import json
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from fastapi_cacheinval import ConfigurationError, render_value
from fastapi_cacheinval.contrib.kafka import PoisonRecord, Record, debezium
from fastapi_cacheinval.core.tags import normalise_tag

CONNECT, DATA, TIME = "org.apache.kafka.connect.data.", "io.debezium.data.", "io.debezium.time."
ID = UUID("0a8f7f4e-1111-4222-8333-9bcdef012345")
MOMENT = datetime.fromisoformat("2026-01-02T03:04:05.678901")
MICROS = 1_767_323_045_678_901
UTC = datetime.fromisoformat("2026-01-02T03:04:05+00:00")
BARE, LAST = UTC.replace(tzinfo=None), datetime.fromisoformat("9999-12-31T23:59:59-01:00")


def of(name: str, kind: str = "int64", **parameters: Any) -> dict[str, Any]:
    return {"type": kind, "name": name, "version": 1, "optional": True, "parameters": parameters}


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def scaled(scale: int) -> dict[str, Any]:
    return of(CONNECT + "Decimal", "bytes", scale=str(scale))


VARIABLE = {**of(DATA + "VariableScaleDecimal", "struct"), "fields": [
    {"type": "int32", "field": "scale"}, {"type": "bytes", "field": "value"}]}  # fmt: skip

# Schema, value in JSON, and the values of Python that a page may have been tagged with.
READ: dict[str, tuple[dict[str, Any], Any, tuple[object, ...]]] = {
    "NUMERIC(10), precise": (scaled(0), "Kg==", (42,)),
    "NUMERIC(10), of three bytes": (scaled(0), "AYag", (100_000,)),
    "NUMERIC(10,2), precise": (scaled(2), "C+o=", (Decimal("30.50"),)),
    "NUMERIC(10,2), negative": (scaled(2), b64((-105).to_bytes(1, "big", signed=True)), (Decimal("-1.05"),)),
    "NUMERIC(10,-2)": (scaled(-2), "Kg==", (4200,)),
    "NUMERIC, decimal.format NUMERIC": (scaled(2), 30.5, (Decimal("30.5"),)),
    "NUMERIC, decimal.handling.mode double": ({"type": "double"}, 42.0, (42,)),
    "NUMERIC, decimal.handling.mode string": ({"type": "string"}, "42", ("42",)),
    "NUMERIC without a scale": (VARIABLE, {"scale": 3, "value": "AeJA"}, (Decimal("123.456"),)),
    "NUMBER of Oracle": (VARIABLE, {"scale": 0, "value": "Kg=="}, (42,)),
    "MONEY": (scaled(2), "C+o=", (Decimal("30.50"),)),
    "BIGINT UNSIGNED, precise": (scaled(0), b64((2**64 - 1).to_bytes(9, "big")), (2**64 - 1,)),
    "REAL": ({"type": "float"}, 0.1, (0.1,)),
    "BOOLEAN": ({"type": "boolean"}, True, (True,)),
    "SMALLINT": ({"type": "int16"}, 7, (7,)),
    "TINYINT(1) of MySQL": ({"type": "int16"}, 1, (1, True)),
    "NUMBER(1) of Oracle": ({"type": "int8"}, 0, (0, False)),
    "CHAR(5)": ({"type": "string"}, "ab   ", ("ab   ", "ab")),
    "DATE": (of(TIME + "Date", "int32"), 20_455, (date(2026, 1, 2),)),
    "DATE before 1970": (of(TIME + "Date", "int32"), -1, (date(1969, 12, 31),)),
    "DATE, connect": (of(CONNECT + "Date", "int32"), 20_455, (date(2026, 1, 2),)),
    "DATE, isostring": (of(TIME + "IsoDate", "string"), "2026-01-02Z", (date(2026, 1, 2),)),
    "TIME(3)": (of(TIME + "Time", "int32"), 11_045_250, (time(3, 4, 5, 250_000),)),
    "TIME(6)": (of(TIME + "MicroTime"), 11_045_250_001, (time(3, 4, 5, 250_001),)),
    "TIME(7) of SQL Server": (of(TIME + "NanoTime"), 11_045_250_001_900, (time(3, 4, 5, 250_001),)),
    "TIME, connect": (of(CONNECT + "Time", "int32"), 11_045_000, (time(3, 4, 5),)),
    "TIME, isostring": (of(TIME + "IsoTime", "string"), "03:04:05.25Z", (time(3, 4, 5, 250_000),)),
    "TIMETZ": (of(TIME + "ZonedTime", "string"), "03:04:05Z", (time.fromisoformat("03:04:05+00:00"),)),
    "DATETIME": (of(TIME + "Timestamp"), MICROS // 1_000, (MOMENT.replace(microsecond=678_000),)),
    "TIMESTAMP(6)": (of(TIME + "MicroTimestamp"), MICROS, (MOMENT,)),
    "DATETIME2(7)": (of(TIME + "NanoTimestamp"), MICROS * 1_000 + 200, (MOMENT,)),
    "TIMESTAMP, connect": (of(CONNECT + "Timestamp"), MICROS // 1_000, (MOMENT.replace(microsecond=678_000),)),
    "TIMESTAMP, isostring": (of(TIME + "IsoTimestamp", "string"), MOMENT.isoformat() + "Z", (MOMENT,)),
    "TIMESTAMPTZ": (of(TIME + "ZonedTimestamp", "string"), "2026-01-02T03:04:05Z", (UTC, BARE)),
    "TIMESTAMPTZ, the last": (of(TIME + "ZonedTimestamp", "string"), LAST.isoformat(), (LAST,)),
    "TIMESTAMPTZ(6)": (of(TIME + "ZonedTimestamp", "string"), MOMENT.isoformat() + "Z", (MOMENT.replace(tzinfo=UTC.tzinfo), MOMENT)),
    "DATETIMEOFFSET": (of(TIME + "ZonedTimestamp", "string"), "2026-01-02T04:04:05.0000000+01:00", (UTC, BARE)),
    "YEAR": (of(TIME + "Year", "int32"), 2026, (2026,)),
    "INTERVAL": (of(TIME + "MicroDuration"), 129_600_000_000, (129_600,)),
    "INTERVAL, nanoseconds": (of(TIME + "NanoDuration"), 1_500_000_000, (Decimal("1.5"),)),
    "INTERVAL, string": (of(TIME + "Interval", "string"), "P0Y0M1DT12H0M0S", (129_600,)),
    "INTERVAL, string, negative": (of(TIME + "Interval", "string"), "P0Y0M0DT0H0M-1.5S", (Decimal("-1.5"),)),
    "UUID": (of(DATA + "Uuid", "string"), str(ID), (ID,)),
    "UUID in upper case": (of(DATA + "Uuid", "string"), str(ID).upper(), (ID,)),
    "UNIQUEIDENTIFIER": ({"type": "string"}, str(ID).upper(), (ID, str(ID).upper())),
    "CHAR(32) of SQLAlchemy": ({"type": "string"}, ID.hex, (ID, ID.hex)),
    "BYTEA": ({"type": "bytes"}, "AP8=", (b"\x00\xff",)),
    "BINARY(16)": ({"type": "bytes"}, b64(ID.bytes), (ID, ID.bytes)),
    "BINARY(16), base64": ({"type": "string"}, "AAAAAAAAAAAA/wAAAAAAAA==",
        ("AAAAAAAAAAAA/wAAAAAAAA==", bytes([*[0] * 9, 255, *[0] * 6]), UUID(int=255 << 48))),
    "BINARY(16), base64-url-safe": ({"type": "string"}, "AAAAAAAAAAAA_wAAAAAAAA==",
        ("AAAAAAAAAAAA_wAAAAAAAA==", bytes([*[0] * 9, 255, *[0] * 6]), UUID(int=255 << 48))),
    "BINARY, hex": ({"type": "string"}, "00ff", ("00ff",)),
    "BIT(1)": ({"type": "boolean"}, False, (False,)),
    "BIT(10)": (of(DATA + "Bits", "bytes", length="10"), b64(b"\x05\x02"), (517, "1000000101")),
    "BIT VARYING": (of(DATA + "Bits", "bytes", length="2147483647"), b64(b"\x05"), (5, "101")),
    "ENUM": (of(DATA + "Enum", "string", allowed="red,green"), "red", ("red",)),
    "XML": (of(DATA + "Xml", "string"), "<a/>", ("<a/>",)),
    "LTREE": (of(DATA + "Ltree", "string"), "top.shop", ("top.shop",)),
    "JSON, a number": (of(DATA + "Json", "string"), "7", (7,)),
    "JSON, text": (of(DATA + "Json", "string"), '"a"', ("a",)),
    "text like base64": ({"type": "string"}, "Kg==", ("Kg==",)),
    "BIGINT like a moment": ({"type": "int64"}, MICROS, (MICROS,)),
    "null": (scaled(2), None, ()),
}  # fmt: skip

REFUSED: dict[str, tuple[dict[str, Any], Any]] = {
    "JSON": (of(DATA + "Json", "string"), '{"a": 1}'),
    "JSON, deep": (of(DATA + "Json", "string"), "[" * 100_000 + "]" * 100_000),
    "JSON, not whole": (of(DATA + "Json", "string"), "[1"),
    "JSON, empty": (of(DATA + "Json", "string"), ""),
    "JSON, a number of too many digits": (of(DATA + "Json", "string"), "9" * 5_000),
    "SET": (of(DATA + "EnumSet", "string", allowed="a,b"), "a,b"),
    "TSVECTOR": (of(DATA + "TsVector", "string"), "'a':1"),
    "GEOMETRY": ({**of(DATA + "geometry.Geometry", "struct"), "fields": []}, {"wkb": "AQE=", "srid": None}),
    "GEOGRAPHY": ({**of(DATA + "geometry.Geography", "struct"), "fields": []}, {"wkb": "AQE=", "srid": 4326}),
    "POINT": ({**of(DATA + "geometry.Point", "struct"), "fields": []}, {"x": 1.0, "y": 2.0, "wkb": "AQE="}),
    "VECTOR": ({**of(DATA + "FloatVector", "array"), "items": {"type": "float"}}, [0.5]),
    "TEXT[]": ({"type": "array", "items": {"type": "string"}}, ["a"]),
    "HSTORE, map": ({"type": "map", "keys": {"type": "string"}, "values": {"type": "string"}}, {"a": "b"}),
    "TIME of a day": (of(TIME + "MicroTime"), 86_400_000_000),
    "TIME before midnight": (of(TIME + "MicroTime"), -1),
    "INTERVAL with months": (of(TIME + "Interval", "string"), "P1Y2M3DT4H5M6.78S"),
    "infinity": (of(TIME + "MicroTimestamp"), 9_223_372_036_825_200_000),
    "infinity with a zone": (of(TIME + "ZonedTimestamp", "string"), "infinity"),
    "a DATE before year 1": (of(TIME + "Date", "int32"), -800_000),
    "a type that is not known": (of(TIME + "PicoTimestamp"), MICROS),
    "a type of text that is not known": (of(DATA + "Verse", "string"), "Roses"),
    "a type of Kafka Connect that is not known": (of(CONNECT + "Half", "int16"), 1),
    "no base64": (scaled(2), "?"),
    "no number": (of(TIME + "Date", "int32"), "20455"),
    "no UUID": (of(DATA + "Uuid", "string"), "x"),
}  # fmt: skip


def event(schema: dict[str, Any] | None, value: Any, *, envelope: bool = True, key: bool = False) -> Record:
    """A record of a table with a column `value`, with its schema or without any."""
    row = {"type": "struct", "name": "shop.public.thing.Value", "fields": [
        {"type": "int32", "field": "id"}, {"type": "string", "field": "name"}, {**(schema or {}), "field": "value"}]}  # fmt: skip
    payload: Any = {"id": 1, "name": "a", "value": value}
    fields: Any = row
    if envelope:
        fields = {"type": "struct", "name": "shop.public.thing.Envelope", "fields": [
            {**row, "field": "before"}, {**row, "field": "after"}, {"type": "string", "field": "op"}]}  # fmt: skip
        payload = {"before": None, "after": payload, "op": "c"}
    data = payload if schema is None else {"schema": fields, "payload": payload}
    of_key = {"schema": row, "payload": {"id": 1, "value": value}} if schema else {"id": 1, "value": value}
    return Record(
        "shop.public.thing",
        0,
        0,
        json.dumps(of_key).encode() if key else None,
        None if key else json.dumps(data).encode(),
    )


def tags(values: tuple[object, ...]) -> set[str]:
    """What a route's template renders for these values."""
    return {normalise_tag(f"v:{render_value(value)}") or "" for value in values}


@pytest.mark.parametrize("form", ["envelope", "flattened", "key"])
@pytest.mark.parametrize(("schema", "value", "values"), READ.values(), ids=READ)
def test_a_value_is_read_by_its_type(form: str, schema: dict[str, Any], value: Any, values: tuple[object, ...]) -> None:
    """In an envelope, in a flattened row and in the key of a tombstone: the tags are those of the pages, no other."""
    found = debezium({"thing": ["v:{value}"]})(event(schema, value, envelope=form == "envelope", key=form == "key"))
    assert set(found or ()) == tags(values)


@pytest.mark.parametrize(("schema", "value"), REFUSED.values(), ids=REFUSED)
def test_a_value_that_has_no_one_text_refuses_its_template_and_no_other(
    schema: dict[str, Any], value: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """What the other templates name is told with the error; a mapping that does not name the column reads the event."""
    read = debezium({"thing": ["thing:{id}", "v:{value}", "named:{name}:{value}", "things"]})
    for _ in range(3):
        with pytest.raises(PoisonRecord, match=r"The column 'thing.value' ") as refused:
            read(event(schema, value))
        assert refused.value.readable.tags == ("thing:1", "things")
        assert not value or str(value) not in str(refused.value)
    assert caplog.text.count("cannot make a tag of a column") == 1
    assert list(read.explain().refused) == ["thing.value"]
    assert set(debezium({"thing": ["thing:{id}", "things"]})(event(schema, value)) or ()) == {"thing:1", "things"}


AMBIGUOUS: dict[str, tuple[str, Any, str]] = {
    "NUMERIC": ("id", "Kg==", "decimal.handling.mode"),
    "BINARY(16)": ("id", b64(ID.bytes), "binary.handling.mode=hex"),
    "DATE": ("day", 20_455, "time.precision.mode=isostring"),
    "DATE of Oracle": ("DELIVERY_DATE", 1_767_225_600_000, "time.precision.mode=isostring"),
    "TIMESTAMP": ("created_at", MICROS, "time.precision.mode=isostring"),
    "TIME": ("opensAt", 11_045_000_000, "time.precision.mode=isostring"),
}


@pytest.mark.parametrize(("column", "value", "setting"), AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_without_a_schema_what_may_be_two_things_is_refused(
    column: str, value: Any, setting: str, caplog: pytest.LogCaptureFixture
) -> None:
    """With the connector's setting that helps, warned of once a column; `plain` says that it is what it looks like."""
    templates = [f"v:{{{column}}}", "things"]
    record = Record("thing", 0, 0, None, json.dumps({column: value}).encode())
    read = debezium({"thing": templates})
    for _ in range(3):
        with pytest.raises(PoisonRecord) as refused:
            read(record)
        assert refused.value.readable.tags == ("things",)
        assert setting in str(refused.value)
        assert "schemas.enable=true" in str(refused.value)
    assert caplog.text.count("cannot make a tag of a column") == 1
    assert f"plain=['thing.{column}']" in caplog.text
    plain = debezium({"thing": templates}, plain=[f"thing.{column}"])
    assert set(plain(record) or ()) == {*tags((value,)), "things"}


def row_of(column: str, value: Any) -> Record:
    return Record("thing", 0, 0, None, json.dumps({column: value}).encode())


def of_three_bytes(text: str) -> tuple[object, ...]:
    """What a text may be that three bytes are written like."""
    data = base64.b64decode(text)
    number = int.from_bytes(data, "big", signed=True)
    return (text, data, *(Decimal(f"{number}E{-scale}") for scale in range(39)))


def test_without_a_schema_a_column_of_bytes_is_known_from_then_on() -> None:
    """Every third number has no `=` at its end: after one that has, the column's texts may all be numbers."""
    read = debezium({"thing": ["v:{id}"]})
    rows = [row_of("id", text) for text in ("AYag", "Kg==", "AYag", "x-1")]
    assert set(read(rows[0]) or ()) == tags(of_three_bytes("AYag"))
    for row in rows[1:3]:
        with pytest.raises(PoisonRecord, match=r"decimal\.handling\.mode"):
            read(row)
    assert read(rows[3]) == ("v:x-1",)


def test_without_a_schema_a_column_of_text_is_known_from_then_on() -> None:
    """Bytes are never written like `lamp-1`: until one such text has come, `lamp` may be a number, and is text after it."""
    read = debezium({"thing": ["v:{name}"]})
    assert set(read(row_of("name", "lamp")) or ()) == tags(of_three_bytes("lamp"))
    assert read(row_of("name", "lamp-1")) == ("v:lamp-1",)
    assert read(row_of("name", "lamp")) == ("v:lamp",)
    # And of that column alone.
    other = debezium({"thing": ["v:{name}", "w:{code}"]})
    assert other(Record("thing", 0, 0, None, b'{"name": "lamp-1", "code": null}')) == ("v:lamp-1",)
    found = set(other(Record("thing", 0, 0, None, b'{"name": "lamp", "code": "lamp"}')) or ())
    assert found == {"v:lamp", *(f"w:{tag[2:]}" for tag in tags(of_three_bytes("lamp")))}


@pytest.mark.parametrize("scale", [0, 2, 18, 38])
@pytest.mark.parametrize("number", [32_768, 8_388_607, -32_769, -8_388_608, 10**13 + 1, 10**27 + 1])
def test_without_a_schema_a_decimal_without_a_sign_of_it_is_purged(number: int, scale: int) -> None:
    """Whatever its digits after the point are: the tag of its page is among those that are purged."""
    size = (number if number >= 0 else ~number).bit_length() // 8 + 1
    text = b64(number.to_bytes(size, "big", signed=True))
    assert not text.endswith("=")
    found = set(debezium({"thing": ["v:{value}"]})(row_of("value", text)) or ())
    assert tags((Decimal(f"{number}E{-scale}"), text)) <= found


@pytest.mark.parametrize("column", ["due", "valid_from", "Opening", "value"])
@pytest.mark.parametrize(
    ("number", "value"),
    [
        (20_455, date(2026, 1, 2)),
        (-25_567, date(1900, 1, 1)),
        (2_932_896, date(9999, 12, 31)),
        (1_767_323_045_678, datetime.fromisoformat("2026-01-02T03:04:05.678000")),
        (MICROS, MOMENT),
        (MICROS * 1_000, MOMENT),
        (11_045_000, time(3, 4, 5)),
        (11_045_000_000, time(3, 4, 5)),
        (0, time(0)),
        (129_600_000_000, timedelta(hours=36)),
    ],
)
def test_without_a_schema_a_time_in_a_column_of_any_name_is_purged(column: str, number: int, value: Any) -> None:
    """A number in a column that nobody would take for a time is purged as itself and as every time that it may be."""
    found = set(debezium({"thing": [f"v:{{{column}}}"]})(row_of(column, number)) or ())
    assert tags((number, value)) <= found
    assert len(found) <= 9


@pytest.mark.parametrize("column", ["id", "ID", "product_id", "productId", "order_no", "number", "pk"])
def test_without_a_schema_a_number_in_a_column_of_numbers_is_a_number(column: str) -> None:
    """The keys of tables, which most templates name, cost one tag."""
    assert debezium({"thing": [f"v:{{{column}}}"]})(row_of(column, 20_455)) == ("v:20455",)


@pytest.mark.parametrize("schema", [None, {"type": "string"}], ids=["without a schema", "with a schema"])
@pytest.mark.parametrize(("text", "value"), [("30.50", Decimal("30.5")), ("-42.00", Decimal(-42)), ("0.0", Decimal(0))])
def test_a_decimal_that_is_written_as_text_is_purged_as_a_number_too(schema: Any, text: str, value: Decimal) -> None:
    """`decimal.handling.mode=string` keeps zeros at the end, and no tag of a number has any."""
    assert set(debezium({"thing": ["v:{value}"]})(event(schema, text)) or ()) == tags((text, value))


GUESSED: dict[str, tuple[Any, tuple[object, ...]]] = {
    "NUMERIC, double": (42.0, (42,)),
    "NUMERIC without a scale": ({"scale": 2, "value": "C+o="}, (Decimal("30.50"),)),
    "text": ("acme-1", ("acme-1",)),
    "a version": ("1.10.0", ("1.10.0",)),
    "a number that no time is": (10**40, (10**40,)),
    "empty text": ("", ("",)),
    "UNIQUEIDENTIFIER": (str(ID).upper(), (ID, str(ID).upper())),
    "UUID": (str(ID), (ID,)),
    "TIMESTAMPTZ": ("2026-01-02T03:04:05Z", ("2026-01-02T03:04:05Z", UTC, UTC.replace(tzinfo=None))),
    "DATE, isostring": ("2026-01-02Z", ("2026-01-02Z", date(2026, 1, 2))),
    "TIME, isostring": ("03:04:05Z", ("03:04:05Z", time(3, 4, 5), time.fromisoformat("03:04:05+00:00"))),
    "no such day": ("2026-13-02Z", ("2026-13-02Z",)),
    "BOOLEAN": (True, (True,)),
    "CHAR(9)": ("acme-1   ", ("acme-1   ", "acme-1")),
    "_id of MongoDB": ({"$oid": "596e275826f08b2730779e1f"}, ("596e275826f08b2730779e1f",)),
    "JSON, text": ('"a"', ('"a"', "a")),
    "JSON, a truth": ("false", ("false", False)),
    "text with a quotation mark": ('"a', ('"a',)),
    "null": (None, ()),
}


@pytest.mark.parametrize("number", [0, 1])
def test_without_a_schema_a_number_may_be_true_or_false(number: int) -> None:
    """MySQL has no type of its own for it; a number that names a row is a number."""
    assert tags((number, bool(number))) <= set(debezium({"thing": ["v:{active}"]})(row_of("active", number)) or ())
    assert debezium({"thing": ["v:{id}"]})(row_of("id", number)) == (f"v:{number}",)


@pytest.mark.parametrize(("value", "values"), GUESSED.values(), ids=GUESSED)
def test_without_a_schema_every_reading_of_a_value_is_purged(value: Any, values: tuple[object, ...]) -> None:
    """A text that a UUID or a moment may be stands for both; nobody has a tag that no page has."""
    assert set(debezium({"thing": ["v:{value}"]})(event(None, value)) or ()) == tags(values)


PLACEHOLDER = "__debezium_unavailable_value"
HEX, BASE64 = PLACEHOLDER.encode().hex(), b64(PLACEHOLDER.encode())
UNTOLD: dict[str, tuple[dict[str, Any] | None, Any]] = {
    "text": ({"type": "string"}, PLACEHOLDER),
    "text, no schema": (None, PLACEHOLDER),
    "bytes": ({"type": "bytes"}, BASE64),
    "bytes, no schema": (None, BASE64),
    "bytes, base64 for URLs": ({"type": "string"}, BASE64.rstrip("=")),
    "bytes, hex": ({"type": "string"}, HEX),
    "bytes, hex, no schema": (None, HEX),
    "bytes, hex in capitals, no schema": (None, HEX.upper()),
    "JSON": (of(DATA + "Json", "string"), PLACEHOLDER),
    "JSON, as a text in it": (of(DATA + "Json", "string"), json.dumps(PLACEHOLDER)),
    "JSON, as a text in it, no schema": (None, json.dumps(PLACEHOLDER)),
    "XML": (of(DATA + "Xml", "string"), PLACEHOLDER),
    "LTREE": (of(DATA + "Ltree", "string"), PLACEHOLDER),
    "NUMERIC": (scaled(2), BASE64),
    "NUMERIC without a scale": (VARIABLE, {"scale": 0, "value": BASE64}),
    "NUMERIC without a scale, no schema": (None, {"scale": 0, "value": BASE64}),
    "BIT VARYING": (of(DATA + "Bits", "bytes", length="2147483647"), BASE64),
    "TEXT[]": ({"type": "array", "items": {"type": "string"}}, [PLACEHOLDER]),
    "TEXT[], no schema": (None, [PLACEHOLDER]),
}


@pytest.mark.parametrize(("schema", "told"), UNTOLD.values(), ids=UNTOLD)
def test_what_was_not_stored_again_is_refused_where_nobody_tells_it(schema: dict[str, Any] | None, told: Any) -> None:
    """A large value that an update did not touch: the old row has it, or the template that names it is refused."""
    for row in (event(schema, told), event(schema, told, envelope=False)):
        read = debezium({"thing": ["thing:{id}", "v:{value}"]})
        with pytest.raises(PoisonRecord, match="REPLICA IDENTITY FULL") as refused:
            read(row)
        assert refused.value.readable.tags == ("thing:1",)


def test_what_was_not_stored_again_is_told_by_the_old_row() -> None:
    """With all columns in it, the page's tag is known, and the placeholder is none; a row of its own columns is read as ever."""
    for told in (PLACEHOLDER, BASE64, HEX, [PLACEHOLDER]):
        change = {"op": "u", "before": {"id": 1, "value": "x"}, "after": {"id": 1, "value": told}}
        known = debezium({"thing": ["thing:{id}", "v:{value}"]})(
            Record("thing", 0, 0, None, json.dumps(change).encode())
        )
        assert set(known or ()) == {"thing:1", "v:x"}
    columns = {"type": "struct", "fields": [{"type": "int32", "field": "scale"}, {"type": "string", "field": "value"}]}
    row = {"schema": columns, "payload": {"scale": 7, "value": PLACEHOLDER}}
    assert debezium({"thing": ["s:{scale}"]})(Record("thing", 0, 0, None, json.dumps(row).encode())) == ("s:7",)


@pytest.mark.parametrize("plain", ["thing.value", ["value"], ["things.value"], ["thing.id"]])
def test_plain_names_columns_of_templates(plain: Any) -> None:
    """A misspelt one is told when the function is made, with those that there are."""
    with pytest.raises(ConfigurationError, match="plain"):
        debezium({"thing": ["v:{value}"]}, plain=plain)
