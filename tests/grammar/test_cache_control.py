"""Cache-Control: RFC 9111 §5.2, with the extensions of RFC 5861 and RFC 8246."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastapi_cacheinval.grammar.cache_control import MAX_SECONDS, CacheControl, parse, serialise

NAMES = (
    b"no-store no-cache private public max-age s-maxage must-revalidate proxy-revalidate "
    b"must-understand immutable no-transform only-if-cached min-fresh max-stale "
    b"stale-while-revalidate stale-if-error"
).split()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        # §5.2.1 and §5.2.2: each directive
        (b"", CacheControl()),
        (b"no-store", CacheControl(no_store=True)),
        (b"no-cache", CacheControl(no_cache=True)),
        (b'no-cache="Set-Cookie, X-A"', CacheControl(no_cache=frozenset({b"set-cookie", b"x-a"}))),
        (b"private", CacheControl(private=True)),
        (b"private=x-user", CacheControl(private=frozenset({b"x-user"}))),
        (b"public", CacheControl(public=True)),
        (b"max-age=60", CacheControl(max_age=60)),
        (b"s-maxage=60", CacheControl(s_maxage=60)),
        (b"must-revalidate", CacheControl(must_revalidate=True)),
        (b"proxy-revalidate", CacheControl(proxy_revalidate=True)),
        (b"must-understand", CacheControl(must_understand=True)),
        (b"no-transform", CacheControl(no_transform=True)),
        (b"only-if-cached", CacheControl(only_if_cached=True)),
        (b"min-fresh=5", CacheControl(min_fresh=5)),
        (b"max-stale=5", CacheControl(max_stale=5)),
        (b"max-stale", CacheControl(max_stale=True)),
        (b"immutable", CacheControl(immutable=True)),
        (b"stale-while-revalidate=5", CacheControl(stale_while_revalidate=5)),
        (b"stale-if-error=5", CacheControl(stale_if_error=5)),
        # §5.2: case, quoting, unknown directives
        (b"MaX-aGe=60, No-Store", CacheControl(max_age=60, no_store=True)),
        (b'max-age="60"', CacheControl(max_age=60)),
        (b'max-age="\\60"', CacheControl(max_age=60)),
        (b'x="max-age=100", max-age=1', CacheControl(max_age=1)),
        (b'max-age=1, x="max-age=100"', CacheControl(max_age=1)),
        (b"foo, foo=bar, =, =1, max-age=1", CacheControl(max_age=1)),
        (b"no-cache, max-age=0", CacheControl(no_cache=True, max_age=0)),
        (b"no-cache,max-age=0", CacheControl(no_cache=True, max_age=0)),
        # §1.2.2: delta-seconds
        (b"max-age=003600", CacheControl(max_age=3600)),
        (b"max-age=2147483648", CacheControl(max_age=MAX_SECONDS)),
        (b"max-age=99999999999", CacheControl(max_age=MAX_SECONDS)),
        (b"max-age=" + b"9" * 10_000, CacheControl(max_age=MAX_SECONDS)),
        (b"max-age=" + b"0" * 10_000 + b"7", CacheControl(max_age=7)),
        # §4.2.1: invalid freshness is stale
        (b"max-age", CacheControl(max_age=0)),
        (b"max-age=", CacheControl(max_age=0)),
        (b"max-age=-100", CacheControl(max_age=0)),
        (b"max-age=a100", CacheControl(max_age=0)),
        (b"max-age=100a", CacheControl(max_age=0)),
        (b"max-age=3600.5", CacheControl(max_age=0)),
        (b"max-age='3600'", CacheControl(max_age=0)),
        (b'max-age="3600', CacheControl(max_age=0)),
        (b"max-age =100", CacheControl(max_age=0)),
        (b"max-age= 100", CacheControl(max_age=0)),
        (b"max-age=\xb2", CacheControl(max_age=0)),
        (b"s-maxage=x", CacheControl(s_maxage=0)),
        (b"stale-if-error=x", CacheControl(stale_if_error=0)),
        (b"max-stale=x", CacheControl(max_stale=0)),
        (b"min-fresh=x", CacheControl()),
        # a field list that cannot be read limits nothing
        (b'private=""', CacheControl(private=True)),
        (b'private="a b"', CacheControl(private=True)),
        (b'private="a', CacheControl(private=True)),
        (b'private = "a"', CacheControl(private=True)),
        (b"private='set-cookie'", CacheControl(private=True)),
        (b"private='*'", CacheControl(private=True)),
        (b"private=\"'x-user', x-team\"", CacheControl(private=True)),
        (b'private="x-user, *"', CacheControl(private=True)),
        (b'private="true, x-user"', CacheControl(private=True)),
        (b"private=`x-user`", CacheControl(private=True)),
        (b"private=x_user.id-2", CacheControl(private=frozenset({b"x_user.id-2"}))),
        (b"no-cache='set-cookie'", CacheControl(no_cache=True)),
        # a quote that never closes hides no later directive
        (b'x="a, no-store', CacheControl(no_store=True)),
        # §4.2.1: duplicates and conflicts, the stricter holds
        (b"max-age=1800, max-age=1", CacheControl(max_age=1)),
        (b"max-age=1, max-age=1800", CacheControl(max_age=1)),
        (b"max-age=x, max-age=1800", CacheControl(max_age=0)),
        (b"min-fresh=1, min-fresh=9", CacheControl(min_fresh=9)),
        (b"max-stale, max-stale=9", CacheControl(max_stale=9)),
        (b"max-stale=9, max-stale", CacheControl(max_stale=9)),
        (b"private, private=a", CacheControl(private=True)),
        (b"private=a, private", CacheControl(private=True)),
        (b"private=a, private=b", CacheControl(private=frozenset({b"a", b"b"}))),
        (b"no-cache=a, no-cache", CacheControl(no_cache=True)),
        (b"public, private", CacheControl(private=True)),
        (b"public, private=a", CacheControl(public=True, private=frozenset({b"a"}))),
    ],
)
def test_a_field_value_means_what_the_rfc_says(value: bytes, expected: CacheControl) -> None:
    """One line of the field is read as RFC 9111 §5.2 and §4.2.1 ask, the stricter way in doubt."""
    # True equals 1, so equality alone would take max-stale for max-stale=1.
    assert repr(parse([value])) == repr(expected)


SAID: dict[str, CacheControl] = {
    "no-store": CacheControl(no_store=True),
    "no-cache": CacheControl(no_cache=True),
    "private": CacheControl(private=True),
    "max-age": CacheControl(max_age=0),
    "s-maxage": CacheControl(s_maxage=0),
    "must-revalidate": CacheControl(must_revalidate=True),
    "proxy-revalidate": CacheControl(proxy_revalidate=True),
}


HYPHENS = ["_", "", " ", "\u2011", "\u2010", "\u2013", "\u2212", "\xad", "--", " - ", ".", "\x96"]
AROUND = [
    "{}",
    '"{}"',
    "'{}'",
    "\u201c{}\u201d",
    " {} ",
    "{};",
    "public {}",
    "{}=true",
    "x y; {}",
    "x=1; {}",
    "x=1 {}",
    'x="a, b"; {}',
]


@pytest.mark.parametrize("name", SAID)
@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
def test_a_misspelt_word_that_forbids_counts_as_said(name: str, encoding: str) -> None:
    """Its author meant it; a lifetime is 0, beside whatever else is stated."""
    for hyphen, around in product(HYPHENS, AROUND):
        written = around.format(name.replace("-", hyphen)).upper().encode(encoding, "replace").replace(b"?", b"\xad")
        assert parse([written]) == SAID[name], written
        beside = parse([b"max-age=60, x=1, " + written])
        forbids = beside.no_store or beside.no_cache or beside.private or 0 in (beside.max_age, beside.s_maxage)
        assert forbids or beside.must_revalidate or beside.proxy_revalidate, written


def test_letters_of_full_width_are_letters() -> None:
    """As an input method writes them."""
    assert parse(["\uff4e\uff4f\uff0d\uff33tore".encode()]) == CacheControl(no_store=True)


@pytest.mark.parametrize(
    "value",
    [
        "no-store-please", "x-no-store", "x_no_store", "privately", "private-network", "no, store", "nobody-stores",
        "x=no_store", 'x="no_store, private"', "maximum-age=1", "no-storage", "\u212b", "no-transforms", "max-ages=0",
    ],
)  # fmt: skip
def test_other_words_are_other_directives(value: str) -> None:
    """They are ignored, as section 5.2.3 has it."""
    assert parse([b"max-age=60, " + value.encode()]) == CacheControl(max_age=60)


def test_several_lines_are_one_list() -> None:
    """RFC 9110 §5.2: directives on two lines add up, and conflicts across lines are resolved."""
    assert parse([b"max-age=9", b"no-cache, max-age=3"]) == CacheControl(no_cache=True, max_age=3)
    assert parse([]) == CacheControl()


def test_serialising_writes_each_directive_once_in_a_fixed_order() -> None:
    """Field names are quoted and sorted, times are numbers, absent directives are not written."""
    cc = CacheControl(max_age=0, private=frozenset({b"x-b", b"x-a"}), no_cache=True, max_stale=True)
    assert serialise(cc) == b'no-cache, private="x-a, x-b", max-age=0, max-stale'
    assert serialise(CacheControl()) == b""


def test_serialising_keeps_times_within_their_range() -> None:
    """RFC 9111 §1.2.2: delta-seconds are never negative nor above 2**31."""
    assert serialise(CacheControl(max_age=-5, s_maxage=2**40)) == b"max-age=0, s-maxage=2147483648"


def test_an_empty_set_of_field_names_is_written_as_the_stricter_directive() -> None:
    """`private` limited to no field at all cannot be written, so the bare one is."""
    assert serialise(CacheControl(private=frozenset())) == b"private"


arguments = st.sampled_from([b"", b"=", b"=0", b"=7", b'="7"', b"=x", b'="a, b"', b'="', b"=a", b" =1", b"= 1", b"=-1"])
directives = st.tuples(st.sampled_from([*NAMES, b"foo", b""]), arguments).map(b"".join)


@given(st.lists(st.lists(directives, max_size=5).map(b", ".join), max_size=3))
@settings(max_examples=300)
def test_what_was_parsed_survives_serialising(lines: list[bytes]) -> None:
    """parse∘serialise∘parse is parse."""
    cc = parse(lines)
    assert parse([serialise(cc)]) == cc


@given(st.lists(directives, max_size=6))
@settings(max_examples=200)
def test_the_order_of_directives_does_not_matter(members: list[bytes]) -> None:
    """Conflicts are resolved by strictness, so a reversed field means the same."""
    assert parse(members) == parse(members[::-1])


@given(st.lists(directives, max_size=4), directives)
@settings(max_examples=200)
def test_one_more_directive_never_lengthens_a_lifetime(members: list[bytes], more: bytes) -> None:
    """A directive added to a response never makes it fresher than it was."""
    before, after = parse(members), parse([*members, more])
    for lifetime, longer in (
        (after.max_age, before.max_age),
        (after.s_maxage, before.s_maxage),
        (after.stale_if_error, before.stale_if_error),
        (after.stale_while_revalidate, before.stale_while_revalidate),
    ):
        assert longer is None or (lifetime is not None and lifetime <= longer)
    assert after.no_store >= before.no_store


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"private; max-age=60", CacheControl(private=True, max_age=0)),
        (b"max-age=60, private; foo", CacheControl(private=True, max_age=60)),
        (b"no-store; private", CacheControl(no_store=True, private=True)),
        (b"no-cache;no-store", CacheControl(no_cache=True, no_store=True)),
        (b"no-store no-cache", CacheControl(no_cache=True, no_store=True)),
        (b"public max-age=60 no-store", CacheControl(no_store=True, max_age=0)),
        (b"public; s-maxage=60", CacheControl(s_maxage=0)),
        (b"max-age=60, stale-if-error=30; private", CacheControl(private=True, max_age=60, stale_if_error=0)),
        (b"max-age=60; private", CacheControl(private=True, max_age=0)),
        (b"max-age=0 no-store", CacheControl(no_store=True, max_age=0)),
        (b'x="no-store"; no-cache', CacheControl(no_cache=True)),
        (b"max-age: 60", CacheControl(max_age=0)),
        (b'"no-store"', CacheControl(no_store=True)),
        (b"'Private'", CacheControl(private=True)),
        (b"\x0bno-store", CacheControl(no_store=True)),
        (b"no-store\x00", CacheControl(no_store=True)),
        (b"private=true, max-age=60", CacheControl(private=True, max_age=60)),
        (b'no-cache="1", private="*"', CacheControl(no_cache=True, private=True)),
        (b'extension="no-store, private", other=private', CacheControl()),
        (b"no-store-remote, x-private, privately", CacheControl()),
    ],
)
def test_a_member_that_is_no_directive_says_what_its_words_forbid(line: bytes, said: CacheControl) -> None:
    """Semicolons, spaces and quotes are common mistakes, and other caches see the words; arguments say nothing."""
    assert parse([line]) == said
