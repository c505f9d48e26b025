"""Selecting among variants (RFC 9111 section 4.1): what differs is kept apart, and a bounded number of them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fastapi_cacheinval.core.selecting import VaryRecord, for_fill, select, selectors

NAMES = [b"accept", b"accept-encoding", b"x-a", b"x-b"]
headers = st.lists(st.tuples(st.sampled_from(NAMES), st.binary(max_size=6)), max_size=5)
KEY = b"k" * 32


def test_the_handlers_own_fields_are_compared_raw_and_those_of_vary_too_but_for_accept_encoding() -> None:
    """`Accept-Encoding` of `Vary` is normalised, of a handler that reads it raw; names are sorted and unique."""
    assert selectors([b"x-a"], [b"accept-encoding", b"accept", b"x-a"]) == (
        (b"accept", True),
        (b"accept-encoding", False),
        (b"x-a", True),
    )
    assert selectors([b"accept-encoding"], [b"accept-encoding"]) == ((b"accept-encoding", True),)
    assert selectors([], []) == ()


@given(one=headers, two=headers)
def test_selected_alike_exactly_where_the_selecting_lines_are(
    one: list[tuple[bytes, bytes]], two: list[tuple[bytes, bytes]]
) -> None:
    """Raw fields: the same lines in the same order, absent and empty apart; what does not select does not matter."""
    chosen = selectors([b"accept", b"x-a"], [])

    def lines(fields: list[tuple[bytes, bytes]]) -> list[list[bytes]]:
        return [[value for key, value in fields if key == name] for name, _ in chosen]

    assert (select(one, chosen) == select(two, chosen)) == (lines(one) == lines(two))


def test_one_line_two_lines_absent_and_empty_are_four_variants() -> None:
    """A handler can tell them apart, so the cache does."""
    chosen = selectors([b"x-a"], [])
    fields = [
        [],
        [(b"x-a", b"")],
        [(b"x-a", b"1,2")],
        [(b"x-a", b"1"), (b"x-a", b"2")],
        [(b"x-a", b"12")],
        [(b"x-a", b"1=1:2")],
    ]
    assert len({select(each, chosen) for each in fields}) == len(fields)


def test_a_huge_value_takes_bounded_room_and_is_still_told_apart() -> None:
    """64 KiB of one field is a digest; another at its last byte is another."""
    chosen = selectors([b"x-a"], [])
    one = select([(b"x-a", b"a" * 65_536)], chosen)
    two = select([(b"x-a", b"a" * 65_535 + b"b")], chosen)
    assert one != two
    assert sum(len(value) for _, value in one) < 300


def test_spellings_of_accept_encoding_are_one_variant() -> None:
    """Order, white space and weights that change nothing do not multiply what is stored."""
    chosen = selectors([], [b"accept-encoding"])
    spellings = [b"gzip, br", b"br,gzip", b"br;q=1.0, gzip;q=1", b"gzip,br,"]
    assert len({select([(b"accept-encoding", value)], chosen) for value in spellings}) == 1
    assert select([(b"accept-encoding", b"identity")], chosen) != select([(b"accept-encoding", b"gzip")], chosen)


@given(st.lists(st.sampled_from([b"%d" % number for number in range(8)]), min_size=1, max_size=30), st.integers(1, 5))
def test_a_record_keeps_the_last_variants_and_drops_each_other_once(keys: list[bytes], most: int) -> None:
    """At most so many, those stored last; what falls out is named for the store to let go of, and no one that stays."""
    record = VaryRecord(KEY)
    chosen = selectors([b"x-a"], [])
    live: list[bytes] = []
    for moment, key in enumerate(keys):
        record, dropped = record.with_variant(chosen, key, float(moment), most)
        live = [*(each for each in live if each != key), key]
        assert dropped == tuple(live[:-most])
        live = live[-most:]
        assert record.variants == tuple(live)
        assert record.until == moment
    assert record.weight > 0


def test_a_record_remembers_four_selecting_sets_newest_first() -> None:
    """A resource whose `Vary` changes is looked up by its last four sets, so that no attacker can grow the list."""
    record = VaryRecord(KEY)
    sets = [selectors([b"x-%d" % number], []) for number in range(6)]
    for chosen in sets:
        record, _ = record.with_variant(chosen, b"v" + chosen[0][0], 1.0, 32)
    assert record.sets == tuple(reversed(sets[2:]))
    record, _ = record.with_variant(sets[3], b"again", 1.0, 32)
    assert record.sets == (sets[3], sets[5], sets[4], sets[2])
    assert len(list(record.keys_for([]))) == 4


def test_an_earlier_end_does_not_shorten_a_records_life() -> None:
    """It stays for as long as its longest-lived variant."""
    record, _ = VaryRecord(KEY).with_variant((), b"long", 100.0, 32)
    record, _ = record.with_variant((), b"short", 10.0, 32)
    assert record.until == 100.0


def test_variants_in_use_outlive_those_that_nobody_asks_for_again() -> None:
    """A flood of values that come once pushes out itself, in whatever order it comes."""
    chosen = selectors([b"x-a"], [])
    record = VaryRecord(KEY)
    for name in (b"en", b"de", b"fr"):
        record, _ = record.with_variant(chosen, name, 1.0, 4)
        record.used(name)
    gone: list[bytes] = []
    for number in range(200):
        record, dropped = record.with_variant(chosen, b"junk %d" % number, 1.0, 4)
        gone += dropped
    assert set(record.variants) == {b"en", b"de", b"fr", b"junk 199"}
    assert gone == [b"junk %d" % number for number in range(199)]


def test_a_variant_that_is_no_longer_asked_for_gives_way() -> None:
    """Uses age: one that was popular once does not keep its place for ever."""
    chosen = selectors([b"x-a"], [])
    record, _ = VaryRecord(KEY).with_variant(chosen, b"old", 1.0, 2)
    for _ in range(1_000):
        record.used(b"old")
    for number in range(20):
        record, _ = record.with_variant(chosen, b"new %d" % (number % 2), 1.0, 2)
        for _ in range(20):
            record.used(b"new %d" % (number % 2))
    assert b"old" not in record.variants


def test_another_replicas_record_does_not_push_out_what_is_in_use_here() -> None:
    """Joined, the variants that were asked for here stay."""
    chosen = selectors([b"x-a"], [])
    mine, _ = VaryRecord(KEY).with_variant(chosen, b"en", 1.0, 3)
    mine.used(b"en")
    joined = mine.joined(VaryRecord(KEY, (chosen,), (b"1", b"2", b"3", b"4"), 2.0), 3)
    assert b"en" in joined.variants
    assert len(joined.variants) == 3


def test_an_unusual_spelling_fills_its_own_variant_and_finds_the_usual_one() -> None:
    """What an app may not have understood is kept apart, and selected before the common variant by its like alone."""
    chosen = selectors([], [b"accept-encoding"])
    usual, odd = [(b"accept-encoding", b"gzip")], [(b"accept-encoding", b"GZIP")]
    assert for_fill(chosen, usual) == chosen
    assert for_fill(chosen, odd) == ((b"accept-encoding", True),)
    record, _ = VaryRecord(KEY).with_variant(for_fill(chosen, odd), b"odd", 1.0, 32)
    record, _ = record.with_variant(chosen, b"usual", 1.0, 32)
    record, _ = record.with_variant(for_fill(chosen, odd), b"odd", 1.0, 32)
    common = next(iter(record.keys_for(usual)))
    assert next(iter(record.keys_for(odd))) != common
    assert common in list(record.keys_for(odd))
    others: list[list[tuple[bytes, bytes]]] = [
        [(b"accept-encoding", b"gzip"), (b"accept-encoding", b"br")],
        [(b"accept-encoding", b"gzip,,br")],
        [(b"accept-encoding", b"Br")],
    ]
    assert all(for_fill(chosen, headers) != chosen for headers in others)


@given(st.lists(st.sampled_from([b"gzip", b"GZIP", b"3:en,de", b"en,de", b"+en", b"-", b""]), max_size=3))
def test_raw_and_normalised_forms_never_meet(lines: list[bytes]) -> None:
    """No value can be chosen so that its normal form is the raw form of another."""
    fields = [(b"accept-language", line) for line in lines]
    for value in (b"en,de", b"gzip", b"", b"3:en,de"):
        one = select(fields, [(b"accept-language", True)])
        other = select([(b"accept-language", value)], [(b"accept-language", False)])
        assert one != other
