"""What a policy says of what is stored is a part of the key: a release that says something else shares nothing."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from fastapi import FastAPI

from fastapi_cacheinval import CachePolicy, ResponseToStore, cached
from fastapi_cacheinval.core.policy import PolicyFields
from fastapi_cacheinval.routes.middleware_stack import middleware_stack_of
from fastapi_cacheinval.routes.table import RouteTable


def never(response: ResponseToStore) -> bool:
    return False


def always(response: ResponseToStore) -> bool:
    return True


def at_most(size: int) -> Any:
    return lambda response: len(response.body) <= size


async def item(item_id: int) -> int:
    return item_id


def terms_of(*policy: CachePolicy, **fields: Any) -> bytes:
    """The terms of a route with a policy of a minute, but for what is named."""
    app = FastAPI()
    given = fields if policy else {"ttl": 60, **fields}
    app.add_api_route("/items/{item_id}", item, dependencies=[cached(*policy, **given)])
    [plan] = RouteTable(app, middleware_stack_of(app)).plans
    assert plan.known_everywhere
    return plan.terms


# What a field may say beside its default; None where it says nothing of what is stored, or covers have their own names.
FIELDS: dict[str, list[Any] | None] = {
    "ttl": [61, 60.5, timedelta(hours=1)],
    "stale_while_revalidate": [1, 2.5],
    "stale_if_error": [1, 2.5],
    "tags": [["item:{item_id}"], ["items"], ["items", "item:{item_id}"], ["items,item:{item_id}"]],
    "shared": [True],
    "statuses": [{200, 404}, {404}, {200: 60, 404: 5}, {200: 60, 404: 6}, {200: 5, 404: 60}],
    "cache_control": ["no-cache", "max-age=10"],
    "downstream_ttl": [0, 10],
    "vary": [["x-country"], ["x-country", "x-beta"]],
    "request_is_shared": [True],
    "ttl_from_response": [True],
    "should_store": [never, always, at_most(5)],
    "partition_by": None,
    "guarded_by": None,
    "jitter": None,
    "early_refresh": None,
    "soft_timeout": None,
    "hard_timeout": None,
}


def test_each_field_of_a_policy_is_decided_about() -> None:
    """Nobody adds a field and forgets what another release may say of it."""
    assert set(FIELDS) == set(PolicyFields.__annotations__)


@pytest.mark.parametrize("name", [name for name, values in FIELDS.items() if values])
def test_what_a_policy_says_of_what_is_stored_is_in_its_terms(name: str) -> None:
    """Two releases that say something else have other terms; two that say the same have the same ones."""
    values = FIELDS[name] or []

    def every() -> list[bytes]:
        return [terms_of(), *(terms_of(**{name: value}) for value in values)]

    assert len(set(every())) == len(values) + 1
    assert every() == every()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"ttl": 60}, {"ttl": 60.0}),
        ({"ttl": 60}, {"ttl": timedelta(minutes=1)}),
        ({"ttl": 60}, {"statuses": [200]}),
        ({"ttl": 60}, {"statuses": {200: 60}}),
        ({"statuses": [200, 404]}, {"statuses": {404: 60, 200: 60}}),
        ({"tags": ["a", "b"]}, {"tags": ["b", "a"]}),
        ({"tags": ["a", "b"]}, {"tags": ["a", "b", "a"]}),
        ({"vary": ["X-A", "x-b"]}, {"vary": ["x-b", "x-a", "X-A"]}),
        ({"downstream_ttl": 10}, {"downstream_ttl": timedelta(seconds=10)}),
        ({"shared": None}, {"shared": False}),
        ({}, {"jitter": 0.5}),
        ({}, {"early_refresh": 0}),
        ({}, {"hard_timeout": 5}),
        ({"stale_if_error": 60}, {"stale_if_error": 60, "soft_timeout": 5}),
    ],
)
def test_what_says_the_same_has_the_same_terms(one: dict[str, Any], other: dict[str, Any]) -> None:
    """A release that spells it differently, or changes what promises nothing of what is stored, keeps its pages."""
    assert terms_of(**one) == terms_of(**other)


def test_a_policy_and_its_fields_say_the_same() -> None:
    """Whether a policy is made first, or replaced in part."""
    assert terms_of(CachePolicy(60, tags=["items"])) == terms_of(tags=["items"])
    assert terms_of(CachePolicy(5), ttl=60) == terms_of()
    assert terms_of(CachePolicy(60, tags=["a"]), tags=["b"]) == terms_of(tags=["a", "b"])
