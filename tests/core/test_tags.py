"""Tags: one normal form on read and purge, templates that an author hears of, and clients that can break nothing."""

from __future__ import annotations

import enum
import math
import re
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal, localcontext
from ipaddress import IPv4Address
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastapi_cacheinval import ConfigurationError
from fastapi_cacheinval.core.tag_limits import bounded_tags
from fastapi_cacheinval.core.tags import (
    ALL,
    MAX_TAG_BYTES,
    TagTemplate,
    are_normal,
    is_reserved,
    normalise_tag,
    path_tag,
    render_value,
)

NORMAL = re.compile(rf"[\x21-\x7e]{{1,{MAX_TAG_BYTES}}}\Z")
# Lone surrogates too: a path can carry them.
ANY_TEXT = st.text(st.characters(), max_size=40) | st.text(st.sampled_from(" \t\n\r\x00\x01%/{}é世"), max_size=40)


@given(ANY_TEXT)
def test_the_normal_form_is_printable_ascii_or_nothing(text: str) -> None:
    """Whatever a client sends: a tag of printable ASCII up to 1,024 bytes, or None for nothing at all; never an error."""
    tag = normalise_tag(text)
    assert (tag is None) == (text == "")
    assert tag is None or NORMAL.match(tag)


@given(ANY_TEXT)
def test_the_normal_form_is_normal(text: str) -> None:
    """Normalising twice is normalising once: what is stored, shown and purged is one name."""
    tag = normalise_tag(text)
    assert tag is None or normalise_tag(tag) == tag


@given(ANY_TEXT)
def test_no_text_of_a_client_is_a_reserved_tag(text: str) -> None:
    """Nobody purges everything, or a path, by naming it."""
    tag = normalise_tag(text)
    assert tag is None or not is_reserved(tag)
    assert normalise_tag(ALL) != ALL
    assert normalise_tag(path_tag(text)) != path_tag(text)


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        ("product:42", "product:42"),
        ("a b", "a%20b"),
        ("a\tb\r\n", "a%09b%0D%0A"),
        ("\x00", "%00"),
        ("\x7f", "%7F"),
        ("é", "%C3%A9"),
        ("\ud800", "%ED%A0%80"),
        ("世界", "%E4%B8%96%E7%95%8C"),
        ("100%", "100%"),
        ("{id}", "{id}"),
        (" ", "%20"),
        ("", None),
    ],
)
def test_what_is_not_printable_is_percent_encoded(text: str, tag: str | None) -> None:
    """White space, control and non-ASCII characters as UTF-8; everything printable stays, `%` too."""
    assert normalise_tag(text) == tag


def test_too_long_a_tag_becomes_a_digest_and_is_never_cut() -> None:
    """1,024 bytes stay as they are; one more is a digest, and two that differ at the end have two digests."""
    exact, one, two = "a" * 1024, "a" * 1025, "a" * 1024 + "b"
    assert normalise_tag(exact) == exact
    tags = {normalise_tag(text) for text in (one, two, "é" * 1024, "é" * 1023 + "e")}
    assert len(tags) == 4
    assert all(tag is not None and re.fullmatch(r"sha256:[0-9a-f]{64}", tag) for tag in tags)


@given(st.lists(ANY_TEXT, max_size=6))
def test_many_keep_their_first_order_without_duplicates_and_empty_ones(texts: list[str]) -> None:
    """The normal forms of all, each once, where it was first named."""
    tags = bounded_tags(texts)
    assert list(tags) == list(dict.fromkeys(tag for text in texts if (tag := normalise_tag(text)) is not None))


@given(st.lists(ANY_TEXT | st.sampled_from(["a", "a:1", "x" * MAX_TAG_BYTES, "x" * (MAX_TAG_BYTES + 1)]), max_size=5))
def test_many_are_normal_together_where_each_is(texts: list[str]) -> None:
    """It is asked of all at once, and says no for one."""
    assert are_normal(texts) == all(normalise_tag(text) == text for text in texts)


@given(ANY_TEXT, ANY_TEXT)
def test_paths_never_share_a_tag(one: str, two: str) -> None:
    """Two different paths are two tags, of bounded length, and reserved."""
    assert (path_tag(one) == path_tag(two)) == (one == two)
    assert is_reserved(path_tag(one))
    assert len(path_tag("/" + "é" * 10_000)) < 2 * MAX_TAG_BYTES


class Colour(enum.Enum):
    RED = "red"
    ONE = 1
    NOTHING = None


class Size(enum.IntEnum):
    LARGE = 3


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (42, "42"),
        ("42", "42"),
        (0, "0"),
        (True, "True"),
        (None, None),
        (Colour.RED, "red"),
        (Colour.ONE, "1"),
        (Colour.NOTHING, None),
        (Size.LARGE, "3"),
        (1.5, "1.5"),
        (42.0, "42"),
        (-0.0, "0"),
        (1e22, "10000000000000000000000"),
        (1.5e-7, "0.00000015"),
        (0.1 + 0.2, "0.30000000000000004"),
        (math.nan, "NaN"),
        (math.inf, "Infinity"),
        (-math.inf, "-Infinity"),
        (Decimal("30.50"), "30.5"),
        (Decimal(30), "30"),
        (Decimal("3E+2"), "300"),
        (Decimal("-0.00"), "0"),
        (Decimal("0E+99999999"), "0"),
        (Decimal("sNaN"), "NaN"),
        (Decimal("-Infinity"), "-Infinity"),
        (Decimal("1.000000000000000000000000000000000000010"), "1.00000000000000000000000000000000000001"),
        (date(2026, 1, 2), "2026-01-02"),
        (datetime.fromisoformat("2026-01-02 03:04:05"), "2026-01-02 03:04:05"),
        (datetime.fromisoformat("2026-01-02 03:04:05.5"), "2026-01-02 03:04:05.500000"),
        (datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "2026-01-02 03:04:05+00:00"),
        (datetime(2026, 1, 2, 4, 4, 5, tzinfo=timezone(timedelta(hours=1))), "2026-01-02 03:04:05+00:00"),
        (time(3, 4, 5), "03:04:05"),
        (timedelta(days=1, hours=12), "129600"),
        (timedelta(milliseconds=-1500), "-1.5"),
        (time.fromisoformat("05:04:05.5+02:00"), "03:04:05.500000+00:00"),
        (time.fromisoformat("01:00:00+02:00"), "23:00:00+00:00"),
        (time.fromisoformat("01:00:00"), "01:00:00"),
        (b"\x00\xff", "00ff"),
        (bytearray(b"a"), "61"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (IPv4Address("10.0.0.1"), "10.0.0.1"),
        ("30.50", "30.50"),
        ("", ""),
    ],
)
def test_a_value_renders_in_one_way(value: object, text: str | None) -> None:
    """An `Enum` as its value, None as nothing, numbers without exponent and idle zeros, moments in UTC, bytes as hex."""
    assert render_value(value) == text


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**30), max_value=10**30), st.integers(0, 20))
def test_equal_numbers_are_one_tag(value: Decimal, zeros: int) -> None:
    """However many zeros they are written with, as a decimal and, where it holds them exactly, as a float."""
    text = render_value(value)
    assert text is not None
    assert Decimal(text) == value
    assert "E" not in text.upper()
    padded = Decimal(f"{value:f}" + ("" if "." in f"{value:f}" else ".") + "0" * zeros)
    assert render_value(padded) == text
    if Decimal(repr(float(value))) == value:
        assert render_value(float(value)) == text


def test_rounding_of_the_thread_does_not_reach_a_tag() -> None:
    """A context of a few digits, which an app may set for its sums, changes no tag."""
    with localcontext(prec=3):
        assert render_value(Decimal("123456.7890")) == "123456.789"
        assert render_value(timedelta(days=999_999, microseconds=1)) == "86399913600.000001"


@pytest.mark.parametrize("text", ["1E+999999999", "-1.50E-999999999", "1E+131073"])
def test_a_client_cannot_ask_for_a_gigabyte_of_zeros(text: str) -> None:
    """A number that no database holds keeps its exponent, and is still one tag however it is written."""
    rendered = render_value(Decimal(text))
    assert rendered is not None
    assert len(rendered) < 30
    assert Decimal(rendered) == Decimal(text)
    assert render_value(Decimal(text.replace("E", "00E" if "." in text else ".00E"))) == rendered


@pytest.mark.parametrize("moment", [*map(datetime.fromisoformat, ("0001-01-01", "9999-12-31 23:59:59.999999"))])
def test_the_first_and_the_last_moment_render(moment: datetime) -> None:
    """What cannot be brought to UTC stays in its own zone, and raises nothing."""
    for hours in (-14, 14):
        assert render_value(moment.replace(tzinfo=timezone(timedelta(hours=hours))))


@pytest.mark.parametrize(
    ("text", "names", "told"),
    [
        ("p:{a b}", None, "only plain parameter names"),
        ("p:{a.b}", "columns", "only names of columns"),
        ("p:{a!r}", "columns", "only names of columns"),
        ("p:{a:>5}", ("a",), "only names of a in braces"),
        ("p:{b}", ("c", "a"), "only names of a, c in braces, not 'b'"),
        ("p:{a}", (), "no row and no request to take 'a' from"),
        ("", None, "must not be empty"),
        ("x" * 1025, "columns", "over 1024 bytes"),
    ],
)
def test_names_in_braces_are_those_that_there_are(text: str, names: Any, told: str) -> None:
    """Parameters by default, columns of any spelling, just those that are given, or none."""
    with pytest.raises(ConfigurationError, match=told):
        TagTemplate.parse(text, names=names)


def test_columns_may_have_names_that_parameters_have_not() -> None:
    """Spaces, quotes and hyphens."""
    template = TagTemplate.parse("p:{co\"l'; --}:{weiß}", names="columns")
    assert template.names == ("co\"l'; --", "weiß")
    assert template.render({"co\"l'; --": 1, "weiß": 2}) == "p:1:2"
    assert TagTemplate.parse("p:{a b}", names=["a b"]).names == ("a b",)


@pytest.mark.parametrize(
    ("template", "values", "tag"),
    [
        ("products", {}, "products"),
        ("product:{id}", {"id": 42}, "product:42"),
        ("{a}/{b}", {"a": "x", "b": "y"}, "x/y"),
        ("{id}", {"id": ""}, None),
        ("p:{id}", {"id": ""}, "p:"),
        ("p:{id}", {"id": None}, None),
        ("p:{id}", {"id": "a b"}, "p:a%20b"),
        ("p:{id}", {"id": "é\n"}, "p:%C3%A9%0A"),
        ("{{literal}}", {}, "{literal}"),
        ("a{{{id}}}", {"id": 1}, "a{1}"),
        ("p:{id}", {"id": "{other}"}, "p:{other}"),
    ],
)
def test_a_template_renders(template: str, values: dict[str, Any], tag: str | None) -> None:
    """Names in braces are replaced, doubled braces are literal, and a value with braces is a value."""
    assert TagTemplate.parse(template).render(values) == tag


def test_a_template_says_which_names_it_takes() -> None:
    """In order, with repetitions; none for literal text."""
    assert TagTemplate.parse("{a}:{b}:{a}").names == ("a", "b", "a")
    assert TagTemplate.parse("a:{{b}}").names == ()


@given(st.text(st.sampled_from("ab:{} \x01é!0."), max_size=12))
def test_a_template_is_made_or_refused_clearly(text: str) -> None:
    """Any text of an author's: a template whose rendering is a tag, or a `ConfigurationError` that shows the text."""
    try:
        template = TagTemplate.parse(text)
    except ConfigurationError as error:
        refused = str(error)
    else:
        tag = template.render(dict.fromkeys(template.names, 7))
        assert tag is not None
        assert NORMAL.match(tag)
        return
    assert "tag" in refused.lower()
    assert repr(text[:80]) in refused


@given(value=ANY_TEXT)
def test_a_value_on_read_and_a_value_on_purge_meet(value: str) -> None:
    """The template that tags and the one that purges give one tag; so does naming the rendered text by hand."""
    tag = TagTemplate.parse("p:{id}").render({"id": value})
    assert tag == TagTemplate.parse("p:{other}").render({"other": value}) == normalise_tag(f"p:{value}")
