"""Policies: every bad field is a `ConfigurationError` that names it, and a good one means what it says."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from fastapi import Depends, Security
from hypothesis import given
from hypothesis import strategies as st

from fastapi_cacheinval import CachePolicy, ConfigurationError
from fastapi_cacheinval.core.checks import seconds

DURATIONS = ("ttl", "stale_while_revalidate", "stale_if_error")

BAD = [
    *[(name, value) for name in DURATIONS for value in (-1, -0.001, "60", None, True, math.nan, math.inf, 10**400)],
    *[(name, Decimal(60)) for name in DURATIONS],
    ("ttl", timedelta(days=-1)),
    ("ttl", timedelta(days=36_500)),
    ("tags", "products"),
    ("tags", None),
    ("tags", 5),
    ("tags", [5]),
    ("tags", [None]),
    ("tags", [b"product"]),
    ("tags", [""]),
    ("tags", ["a b"]),
    ("tags", ["a\tb"]),
    ("tags", ["\x01all"]),
    ("tags", ["é"]),
    ("tags", ["a" * 1025]),
    ("tags", ["{"]),
    ("tags", ["}"]),
    ("tags", ["{}"]),
    ("tags", ["{0}"]),
    ("tags", ["{a.b}"]),
    ("tags", ["{a[0]}"]),
    ("tags", ["{a!r}"]),
    ("tags", ["{a:>10}"]),
    ("partition_by", "tenant"),
    ("partition_by", 5),
    ("partition_by", (len, "tenant")),
    ("partition_by", Depends()),
    ("guarded_by", "admin"),
    ("guarded_by", [None]),
    ("shared", "yes"),
    ("shared", 1),
    ("shared", 0),
    ("jitter", -0.1),
    ("jitter", 1.1),
    ("jitter", math.nan),
    ("jitter", True),
    ("jitter", "0.1"),
    ("early_refresh", -1),
    ("early_refresh", 101),
    ("early_refresh", math.inf),
    ("statuses", ()),
    ("statuses", {}),
    ("statuses", None),
    ("statuses", 200),
    ("statuses", "200"),
    ("statuses", b"200"),
    ("statuses", {"200"}),
    ("statuses", {True}),
    ("statuses", {200.0}),
    ("statuses", {199}),
    ("statuses", {100}),
    ("statuses", {600}),
    ("statuses", {206}),
    ("statuses", {304}),
    ("statuses", {200, 416}),
    ("statuses", {412: 5}),
    ("statuses", [[200]]),
    ("statuses", {404: -1}),
    ("statuses", {404: "5"}),
    ("statuses", {404: None}),
    ("cache_control", ""),
    ("cache_control", "  "),
    ("cache_control", 5),
    ("cache_control", b"no-cache"),
    ("cache_control", "no-cache\r\nset-cookie: a=b"),
    ("cache_control", "no-cache\x00"),
    ("cache_control", "é"),
]


@pytest.mark.parametrize(("field", "value"), BAD, ids=[f"{name}={str(value)[:20]!a}" for name, value in BAD])
def test_a_bad_field_is_a_configuration_error_that_names_it(field: str, value: Any) -> None:
    """Whatever is wrong is said when the policy is made, with the field or the very value in the text."""
    fields: dict[str, Any] = {"ttl": 60, field: value}
    with pytest.raises(ConfigurationError) as raised:
        CachePolicy(**fields)
    words = {"tags": ("tag",), "statuses": ("status", "A 206", "A 304", "A 412", "A 416")}.get(field, (field,))
    assert any(word in str(raised.value) for word in words)
    with pytest.raises(ConfigurationError):
        CachePolicy.build(CachePolicy(30), {field: value})


@given(
    field=st.sampled_from([field.name for field in dataclasses.fields(CachePolicy) if field.init]),
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.just(object()),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.integers(0, 999), inner, max_size=3) | st.tuples(inner)
        ),
        max_leaves=4,
    ),
)
def test_no_value_of_any_field_raises_anything_else(field: str, value: Any) -> None:
    """A policy is made, or a `ConfigurationError` says why not: never a TypeError from inside."""
    fields: dict[str, Any] = {"ttl": 60, field: value}
    with contextlib.suppress(ConfigurationError):
        policy = CachePolicy(**fields)
        assert CachePolicy.build(policy, {"ttl": 5}).ttl == 5


def test_what_contradicts_itself_is_refused() -> None:
    """`shared=True` says that nobody is told apart; a partition tells them apart."""
    with pytest.raises(ConfigurationError, match="contradict"):
        CachePolicy(60, shared=True, partition_by=len)


@given(number=st.floats(0, 86_400 * 3650))
def test_seconds_and_timedeltas_mean_the_same(number: float) -> None:
    """A duration is a number of seconds or a `timedelta`; two days are not zero."""
    assert seconds(number, "ttl") == number
    assert seconds(timedelta(seconds=number), "ttl") == timedelta(seconds=number).total_seconds()
    assert CachePolicy(timedelta(days=2)).ttl == 172_800


def test_a_policy_is_frozen_and_equal_by_its_fields() -> None:
    """It can be shared between routes without one changing the other's; two of the same fields are the same."""
    policy = CachePolicy(60, tags=["a"])
    with pytest.raises(dataclasses.FrozenInstanceError):
        policy.ttl = 5  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]
    assert policy == CachePolicy(60.0, tags=("a",))
    assert policy != CachePolicy(60, tags=["b"])


def test_what_it_was_made_from_may_change_afterwards() -> None:
    """Lists, sets, mappings and generators are copied: the policy keeps its tags and statuses, also when built upon."""
    tags, statuses, table = ["a"], {200, 404}, {200: 60.0, 404: 5.0}
    policies = [
        CachePolicy(60, tags=tags, statuses=statuses),
        CachePolicy(60, tags=(tag for tag in ("a",)), statuses=(code for code in (200, 404))),
        CachePolicy(60, tags={"a": 1}, statuses=table),
    ]
    tags.append("b")
    statuses.add(500)
    table[500] = 1.0
    for policy in policies:
        built = CachePolicy.build(policy, {"jitter": 0})
        for each in (policy, built):
            assert tuple(each.tags) == ("a",)
            assert set(each.lifetimes) == {200, 404}


def test_fields_replace_and_tags_unite() -> None:
    """`cached(policy, **fields)`: what is named is replaced, tags are added in their first order, the rest stays."""
    policy = CachePolicy(60, stale_if_error=5, tags=["a", "b"])
    built = CachePolicy.build(policy, {"ttl": 10, "tags": ["c", "a"]})
    assert (built.ttl, built.stale_if_error, built.tags) == (10, 5, ("a", "b", "c"))
    assert policy.tags == ("a", "b")
    assert CachePolicy.build(policy, {}) is policy


def test_a_status_has_its_own_lifetime_or_the_policys() -> None:
    """A set takes `ttl`, a changed one too; a mapping keeps what it says."""
    both = CachePolicy(60, statuses={200, 404})
    assert dict(both.lifetimes) == {200: 60, 404: 60}
    assert dict(CachePolicy.build(both, {"ttl": 10}).lifetimes) == {200: 10, 404: 10}
    own = CachePolicy(60, statuses={200: 60, 404: timedelta(seconds=5)})
    assert dict(own.lifetimes) == {200: 60, 404: 5}
    assert dict(CachePolicy.build(own, {"jitter": 0}).lifetimes) == {200: 60, 404: 5}


@pytest.mark.parametrize(
    ("policy", "active"),
    [
        (CachePolicy(60), True),
        (CachePolicy(0), False),
        (CachePolicy(timedelta(0)), False),
        (CachePolicy(60, statuses={200: 0}), False),
        (CachePolicy(60, statuses={200: 0, 404: 5}), True),
        (CachePolicy.build(CachePolicy(60, statuses={200: 60}), {"ttl": 0}), False),
    ],
)
def test_it_is_active_while_something_can_be_stored_under_it(policy: CachePolicy, active: bool) -> None:
    """`ttl=0` switches it off, whatever the statuses say; so do statuses that all live for nothing."""
    assert policy.active is active


def test_covers_are_taken_one_or_several_plain_or_as_markers() -> None:
    """A callable, `Depends`, `Security`, a tuple or a list of these."""
    marker = Security(len, scopes=["a"])
    assert CachePolicy(60, partition_by=len).partition == (len,)
    assert CachePolicy(60, guarded_by=[len, marker]).guards == (len, marker)
    assert CachePolicy(60, guarded_by=(Depends(len),)).guards == (Depends(len),)
    assert CachePolicy(60).partition == CachePolicy(60).guards == ()


def test_building_without_a_lifetime_or_from_something_else_is_refused() -> None:
    """The three mistakes in `cached(...)`: no ttl, a number in the policy's place, a field that is not there."""
    with pytest.raises(ConfigurationError, match="needs a CachePolicy or a ttl"):
        CachePolicy.build(None, {"tags": ["a"]})
    with pytest.raises(ConfigurationError, match="name the fields: ttl=60"):
        CachePolicy.build(60, {})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigurationError, match=r"no field 'tll'. Did you mean 'ttl'\? It has cache_control, down"):
        CachePolicy.build(None, {"tll": 60})
    with pytest.raises(ConfigurationError, match="no field 'x'; it has cache_control, downstream_ttl"):
        CachePolicy.build(None, {"x": 60})
