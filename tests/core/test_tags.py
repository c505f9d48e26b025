"""Tags: one normal form on read and purge, templates that an author hears of, and clients that can break nothing."""

from __future__ import annotations

import enum
import re
from datetime import date
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastapi_cacheinval import ConfigurationError
from fastapi_cacheinval.core.tags import (
    ALL,
    MAX_TAG_BYTES,
    TagTemplate,
    is_reserved,
    normalise_tag,
    normalise_tags,
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
    tags = normalise_tags(texts)
    assert list(tags) == list(dict.fromkeys(tag for text in texts if (tag := normalise_tag(text)) is not None))


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
        (date(2026, 1, 2), "2026-01-02"),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    ],
)
def test_validated_values_render_as_what_they_are(value: object, text: str | None) -> None:
    """An `Enum` renders as its value, None as nothing, the rest as `str` says."""
    assert render_value(value) == text


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
