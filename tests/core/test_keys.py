"""Cache keys: two requests that a handler could tell apart never share one."""

from __future__ import annotations

import enum
from typing import Any
from urllib.parse import quote
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.datastructures import QueryParams

from fastapi_cacheinval.core.keys import (
    KeyParts,
    PartitionTypeError,
    cache_key,
    encode,
    is_local,
    kept_query,
    partition_digest,
    sent_path,
    variant_key,
)

SECRET = b"0123456789abcdef"
BASE = KeyParts(
    mode="policy",
    namespace="n",
    version="1",
    scheme="http",
    host=b"test",
    root_path="/api",
    path="/p",
    query=(b"a", b"1"),
)
TEXT = st.text(st.characters(), max_size=8)
LIST = st.lists(st.binary(max_size=4), max_size=4).map(tuple)
PARTS: dict[str, st.SearchStrategy[Any]] = {
    "mode": st.sampled_from(["policy", "headers"]),
    "namespace": TEXT,
    "version": TEXT,
    "scheme": st.sampled_from(["http", "https"]),
    "host": st.binary(max_size=8).map(bytes.lower),
    "root_path": TEXT,
    "path": TEXT,
    "sent": st.binary(max_size=8),
    "route": LIST,
    "given": LIST,
    "query": LIST,
    "terms": st.binary(max_size=8),
    "covered_by": LIST,
    "partition": st.binary(max_size=8),
    "local": st.binary(max_size=4),
}


def test_every_part_is_drawn_below() -> None:
    """A part that somebody adds to the key is tried with the others."""
    assert set(PARTS) == set(KeyParts._fields)


@given(one=st.builds(KeyParts, **PARTS), two=st.builds(KeyParts, **PARTS))
def test_keys_are_equal_only_for_equal_parts(one: KeyParts, two: KeyParts) -> None:
    """Parts are length-delimited: no value of one can be read as the end of another."""
    assert (cache_key(one) == cache_key(two)) == (one == two)


@given(names=st.permutations(sorted(PARTS)), data=st.data())
def test_a_value_in_another_part_is_another_key(names: list[str], data: st.DataObject) -> None:
    """What one part holds, another part of the same shape may hold in another request: the keys differ."""
    one, two = names[0], names[1]
    value = getattr(BASE, one)
    if value == getattr(BASE, two) or type(value) is not type(getattr(BASE, two)):
        value = data.draw(PARTS[one])
    swapped = BASE._replace(**{one: value})
    other = BASE._replace(**{two: value}) if type(value) is type(getattr(BASE, two)) else BASE
    assert (cache_key(swapped) == cache_key(other)) == (swapped == other)


@given(name=st.sampled_from(sorted(PARTS)), data=st.data())
def test_each_part_counts(name: str, data: st.DataObject) -> None:
    """Changing one part alone changes the key."""
    value = data.draw(PARTS[name])
    changed = BASE._replace(**{name: value})
    assert (cache_key(changed) == cache_key(BASE)) == (value == getattr(BASE, name))


@given(parts=st.builds(KeyParts, **PARTS), selected=st.lists(st.tuples(st.binary(max_size=4), st.binary(max_size=4))))
def test_a_local_key_can_be_told_and_so_can_its_variants(parts: KeyParts, selected: list[tuple[bytes, bytes]]) -> None:
    """Keys that must not leave the process are recognised by themselves, without the route at hand."""
    key = cache_key(parts)
    assert is_local(key) == bool(parts.local)
    assert is_local(variant_key(key, selected)) == bool(parts.local)


def test_the_host_is_compared_without_case() -> None:
    """RFC 9110 section 4.2.3: `Shop.Example` and `shop.example` are one."""
    assert cache_key(BASE._replace(host=b"Shop.Example")) == cache_key(BASE._replace(host=b"shop.example"))


@given(st.lists(st.binary(max_size=5), max_size=5), st.lists(st.binary(max_size=5), max_size=5))
def test_encoding_is_injective(one: list[bytes], two: list[bytes]) -> None:
    """Two sequences of parts are encoded alike only if they are the same."""
    assert (encode(one) == encode(two)) == (one == two)


def key_of(query: bytes, names: frozenset[str] | None = frozenset({"a", "b", "id"})) -> bytes:
    """The key of a request with this query."""
    return cache_key(BASE._replace(query=kept_query(query, names)))


def test_the_classic_collisions_do_not_collide() -> None:
    """Separators in values, encoded or not, repeated and missing values: all different keys."""
    queries = [
        b"",
        b"a=1&b=2",
        b"a=1:b=2",
        b"a=1%26b=2",
        b"a=1%3Ab%3D2%26",
        b"id=1&id=2",
        b"id=2&id=1",
        b"id=2",
        b"id=1",
        b"id=",
        b"id=1,2",
        b"id=12",
        b"a=1",
        b"b=1",
    ]
    keys = [key_of(query) for query in queries]
    assert len(set(keys)) == len(queries)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (b"a=1&b=2", b"b=2&a=1"),
        (b"a=1", b"a=1&utm_source=mail"),
        (b"a=1", b"utm_source=mail&a=1&a2=3"),
        (b"a=%41", b"a=A"),
        (b"a=x+y", b"a=x%20y"),
        (b"a=1", b"&a=1&&"),
        (b"", b"utm_source=mail"),
        (b"id=1&a=2&id=3", b"a=2&id=1&id=3"),
        (b"a=%zz", b"a=%25zz"),
    ],
)
def test_what_a_handler_cannot_tell_apart_is_one_key(one: bytes, two: bytes) -> None:
    """The order of names, undeclared names and spellings of one value do not split the cache."""
    assert key_of(one) == key_of(two)


PAIRS = st.lists(st.tuples(st.sampled_from(["a", "b", "id", "x", "a b", "é"]), st.text(max_size=4)), max_size=5)


@given(PAIRS, PAIRS)
def test_kept_queries_are_equal_exactly_where_the_declared_values_are(
    one: list[tuple[str, str]], two: list[tuple[str, str]]
) -> None:
    """Compared with what the framework hands to the handler: for each declared name its values in order."""
    names = frozenset({"a", "id", "a b", "é"})

    def seen(pairs: list[tuple[str, str]]) -> tuple[bytes, dict[str, list[str]]]:
        query = "&".join(
            f"{quote(name, safe='', errors='surrogatepass')}={quote(value, safe='', errors='surrogatepass')}"
            for name, value in pairs
        ).encode()
        params = QueryParams(query)
        return query, {name: params.getlist(name) for name in names}

    (raw_one, values_one), (raw_two, values_two) = seen(one), seen(two)
    assert (kept_query(raw_one, names) == kept_query(raw_two, names)) == (values_one == values_two)


@given(st.binary(max_size=40))
def test_no_query_raises(query: bytes) -> None:
    """Any bytes: bare percent signs, NUL, broken UTF-8."""
    assert kept_query(query, frozenset({"a"})) == kept_query(query, frozenset({"a"}))
    assert kept_query(query, None) == (b"raw", query)
    assert kept_query(query, frozenset()) == ()


@pytest.mark.parametrize(
    ("raw_path", "query", "sent"),
    [
        (None, b"", b""),
        (b"", b"", b"+"),
        (b"/a", b"", b"+/a"),
        (b"/a", b"q", b"+/a"),
        (b"/a?q", b"q", b"+/a"),
        (b"/a?q", b"r", b"+/a?q"),
        (b"/a?q", b"", b"+/a?q"),
        (b"/a?", b"", b"+/a?"),
        (b"/a?q?r", b"q?r", b"+/a"),
    ],
)
def test_a_query_that_a_server_leaves_in_the_path_is_taken_off(raw_path: bytes, query: bytes, sent: bytes) -> None:
    """Only where it is the request's query: any other text behind a `?` is a part of what was sent."""
    assert sent_path(raw_path, query) == sent


def test_variants_of_one_resource_have_keys_of_their_own() -> None:
    """Names and values both count, absent and empty differ from each other and from the resource itself."""
    key = cache_key(BASE)
    selections: list[tuple[tuple[bytes, bytes], ...]] = [
        (),
        ((b"accept", b""),),
        ((b"accept", b"a"),),
        ((b"accept", b"a"), (b"x", b"")),
        ((b"accepta", b""),),
        ((b"x", b"a"),),
    ]
    keys = {variant_key(key, selected) for selected in selections}
    assert len(keys) == len(selections)
    assert key not in keys
    assert variant_key(cache_key(BASE._replace(path="/q")), selections[2]) not in keys


class Role(enum.Enum):
    ADMIN = "admin"
    ALIAS = "admin"  # noqa: PIE796
    USER = "user"


class Level(enum.IntEnum):
    ONE = 1


class Name(enum.StrEnum):
    ONE = "1"


class Rights(enum.Flag):
    READ = 1
    WRITE = 2


class Bits(enum.IntFlag):
    LOW = 1


DISTINCT: list[object] = [
    None,
    True,
    False,
    1,
    0,
    -1,
    "1",
    b"1",
    "",
    b"",
    "None",
    "True",
    "é",
    "\ud800",
    UUID(int=1),
    UUID(int=1).bytes,
    str(UUID(int=1)),
    Role.ADMIN,
    Role.USER,
    Level.ONE,
    Name.ONE,
    Rights.READ,
    Rights.READ | Rights.WRITE,
    Rights(0),
    Bits(0),
    Bits.LOW,
    Bits(8),
    Bits(9),
    (),
    (1,),
    ("1",),
    (1, 2),
    ((1,), 2),
    ((1, 2),),
    ("a", "b"),
    ("ab", ""),
    ("", "ab"),
    "a" * 100_000,
    10**50,
]


def test_partitions_of_different_values_or_types_never_meet() -> None:
    """1, True, "1", b"1" and an Enum with the value 1 are five partitions; so are all nestings of tuples."""
    digests = [partition_digest((value,), SECRET) for value in DISTINCT]
    assert len(set(digests)) == len(DISTINCT)
    assert all(len(digest) == 32 for digest in digests)
    # Two covers are not one cover that gives a pair.
    assert partition_digest((1, 2), SECRET) != partition_digest(((1, 2),), SECRET)
    assert partition_digest((), SECRET) == b""


def test_equal_values_are_one_partition() -> None:
    """By value, not by object: another tuple, another UUID, an alias of an Enum's member."""
    assert partition_digest((Role.ADMIN,), SECRET) == partition_digest((Role.ALIAS,), SECRET)
    assert partition_digest((UUID(int=1),), SECRET) == partition_digest((UUID(int=1),), SECRET)


def test_a_partition_is_keyed_with_the_secret() -> None:
    """Who knows a user's id cannot compute the key without the secret."""
    assert partition_digest(("alice",), SECRET) != partition_digest(("alice",), SECRET + b"x")


@pytest.mark.parametrize(
    "value",
    [1.5, [1], {"a": 1}, {1}, object(), ("a", 1.5), (("a", [1]),), int, len, bytearray(b"a")],
    ids=lambda value: type(value).__name__,
)
def test_what_has_no_stable_identity_is_refused_with_its_type(value: object) -> None:
    """A float, a list, a model: the error says which types do, and never holds the value itself."""
    with pytest.raises(PartitionTypeError, match="str, bytes, int, UUID, Enum, None") as raised:
        partition_digest((value,), SECRET)
    assert raised.value.value_type in str(raised.value)
