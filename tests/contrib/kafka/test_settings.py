"""A configuration that cannot work is told when the source is made; where reading begins is decided by offsets."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastapi_cacheinval import ConfigurationError, HTTPCache
from fastapi_cacheinval.contrib.kafka import KafkaSource
from fastapi_cacheinval.contrib.kafka.placing import placed
from fastapi_cacheinval.contrib.kafka.settings import checked_config, without_secrets
from fastapi_cacheinval.sources import DROP
from tests.contrib.kafka.sources import named

GOOD = {"bootstrap.servers": "localhost:9092", "group.id": "purges"}

BAD: list[Any] = [
    {},
    {"bootstrap.servers": "localhost:9092"},
    {"group.id": "purges"},
    {**GOOD, "group.id": ""},
    {**GOOD, "enable.auto.commit": True},
    {**GOOD, "enable.auto.commit": "true"},
    {**GOOD, "enable.auto.offset.store": True},
    {**GOOD, "auto.offset.reset": "error"},
    {**GOOD, "auto.offset.reset": "first"},
    {**GOOD, "error_cb": print},
    {**GOOD, "on_commit": print},
    {**GOOD, "default.topic.config": {"auto.offset.reset": "latest"}},
    {**GOOD, 5: 5},
    "localhost:9092",
    None,
]


@pytest.mark.parametrize("config", BAD, ids=repr)
def test_a_configuration_that_contradicts_is_refused(config: Any) -> None:
    """Above all, offsets are never committed by the client on its own."""
    with pytest.raises(ConfigurationError):
        KafkaSource(HTTPCache(), config, ["changes"], tags=named)


OPTIONS: list[dict[str, Any]] = [
    {"topics": []},
    {"topics": [5]},
    {"topics": [""]},
    {"topics": None},
    {"tags": None},
    {"tags": "product"},
    {"wide": "products"},
    {"wide": []},
    {"wide": [5]},
    {"then": 5},
    {"on_poison": 5},
    {"on_unreadable": 5},
    {"on_unreadable": "delete"},
    {"on_unreadable": DROP, "on_poison": print},
    {"batch_tags": 0},
    {"batch_tags": 1001},
    {"batch_bytes": 0},
    {"max_record_bytes": 0},
    {"cache": None},
]


@pytest.mark.parametrize("options", OPTIONS, ids=repr)
def test_options_that_cannot_work_are_refused(options: dict[str, Any]) -> None:
    """Each with a ConfigurationError of its own."""
    given = {"cache": HTTPCache(), "config": GOOD, "topics": ["changes"], "tags": named, **options}
    with pytest.raises(ConfigurationError):
        KafkaSource(given.pop("cache"), given.pop("config"), given.pop("topics"), **given)


def test_an_async_function_of_tags_is_refused() -> None:
    """It would give a coroutine for tags."""

    async def tags(record: object) -> list[str]:
        return []

    with pytest.raises(ConfigurationError, match="plain function"):
        KafkaSource(HTTPCache(), GOOD, ["changes"], tags=tags)  # type: ignore[arg-type]


def test_what_is_given_stands_and_commits_are_ours() -> None:
    """Defaults give way, but for those that the guarantee rests on."""
    found = checked_config({**GOOD, "queued.max.messages.kbytes": 7, "enable.auto.commit": False})
    assert found["queued.max.messages.kbytes"] == 7
    assert found["enable.auto.commit"] is False
    assert found["enable.auto.offset.store"] is False
    assert found["auto.offset.reset"] == "error"
    assert found["partition.assignment.strategy"] == "cooperative-sticky"
    assert "partition.assignment.strategy" not in checked_config({**GOOD, "group.protocol": "consumer"})


def test_a_repr_and_an_error_have_no_secrets() -> None:
    """Whatever the client says, the values of secret settings are not in it."""
    config = {**GOOD, "sasl.password": "hunter2", "sasl.oauthbearer.client.secret": "s3cr3t", "ssl.key.pem": "PEM"}
    source = KafkaSource(HTTPCache(), config, ["changes"], tags=named)
    assert "hunter2" not in repr(source)
    assert without_secrets("hunter2 s3cr3t PEM localhost:9092", config) == "*** *** *** localhost:9092"


@pytest.mark.parametrize(
    ("committed", "low", "high", "reset", "offset", "lost"),
    [
        (5, 0, 9, "latest", 5, False),
        (9, 9, 9, "latest", 9, False),
        (5, 6, 9, "latest", 6, True),
        (5, 6, 9, "earliest", 6, True),
        (10, 0, 9, "latest", 0, True),
        (None, 0, 0, "latest", 0, False),
        (None, 0, 10_000, "latest", 0, False),
        (None, 0, 10_001, "latest", 10_001, True),
        (None, 3, 5, "latest", 5, True),
        (None, 0, 10**9, "earliest", 0, False),
        (None, 3, 5, "earliest", 3, True),
        (None, 5, 5, "latest", 5, True),
    ],
)
def test_where_reading_begins(committed: int | None, low: int, high: int, reset: Any, offset: int, lost: bool) -> None:
    """No record between what was read and where it begins goes without a purge for it."""
    found = placed(committed, low, high, reset)
    assert (found.offset, found.lost is not None) == (offset, lost)


@given(
    committed=st.none() | st.integers(0, 50),
    low=st.integers(0, 30),
    more=st.integers(0, 20_000),
    reset=st.sampled_from(["earliest", "latest"]),
)
def test_what_is_skipped_is_always_told(committed: int | None, low: int, more: int, reset: Any) -> None:
    """Without a word about a loss it begins at what comes next, where nothing before it is gone."""
    found = placed(committed, low, low + more, reset)
    assert low <= found.offset <= low + more or committed == found.offset
    if found.lost is None:
        assert found.offset == (committed or 0)


def test_without_its_extra_the_module_says_what_to_install() -> None:
    """An ImportError with the command."""
    program = "import sys; sys.modules['confluent_kafka'] = None; import fastapi_cacheinval.contrib.kafka"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert found.returncode == 1
    assert "ImportError" in found.stderr
    assert "pip install 'fastapi-cacheinval[kafka]'" in found.stderr
