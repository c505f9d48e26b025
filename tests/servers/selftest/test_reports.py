"""What a failed test shows, and what the fixtures check after each test."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import redis

from tests.servers import Valkey, every_key_has_a_ttl_or_is_permanent, keys_without_a_ttl

ROOT = Path(__file__).parents[3]


@pytest.fixture
def permanent_prefixes() -> tuple[str, ...]:
    """This module leaves keys for its own tests."""
    return ("kept:",)


def test_keys_without_a_ttl_are_named_by_type(redis_server: Valkey) -> None:
    """Those with a TTL and those that are declared are left out."""
    client = redis_server.client
    client.set("short", 1, ex=60)
    client.set("kept:string", 1)
    client.set("string", 1)
    client.zadd("sorted", {"a": 1})
    client.hset("hash", "a", "1")
    assert keys_without_a_ttl(client, ["kept:"]) == {"hash": ["hash"], "string": ["string"], "zset": ["sorted"]}
    with pytest.raises(AssertionError, match="zset: sorted"):
        every_key_has_a_ttl_or_is_permanent(client, ["kept:"])
    client.delete("string", "sorted", "hash")
    every_key_has_a_ttl_or_is_permanent(client, ["kept:"])


def test_a_client_that_does_not_decode_will_do(redis_server: Valkey) -> None:
    """Names and types are text whatever the client gives."""
    with redis.Redis.from_url(redis_server.url) as client:
        client.set("string", 1)
        assert keys_without_a_ttl(client) == {"string": ["string"]}
        client.delete("string")


CONFTEST = """
from tests.servers.fixtures import permanent_prefixes, pytest_runtest_makereport, redis_server, shared_valkey
"""
TESTS = """
import pytest

@pytest.mark.parametrize("fault", ["pause", "kill"])
def test_that_disturbs(redis_server, fault):
    redis_server.add_user("app", "secret", "+@all")
    getattr(redis_server, fault)()

def test_that_finds_it_good(redis_server):
    assert redis_server.execute("ACL", "USERS") == ["default"]

def test_that_leaves_a_key(redis_server):
    redis_server.execute("SET", "left", 1)

def test_that_fails(redis_server):
    assert not redis_server.execute("PING")
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What pytest prints about tests with these fixtures."""
    directory = tmp_path_factory.mktemp("run")
    (directory / "conftest.py").write_text(CONFTEST)
    (directory / "test_it.py").write_text(TESTS)
    options = ["-p", "no:cacheprovider", "-c", str(ROOT / "pyproject.toml"), "-o", f"pythonpath={ROOT}"]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "--rootdir", str(directory), str(directory)],
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1, result.stdout + result.stderr
    return result.stdout


def test_a_failed_test_shows_what_the_servers_wrote(report: str) -> None:
    """The server's log is in the report."""
    assert "FAILED test_it.py::test_that_fails" in report
    assert "output of <Child valkey" in report
    assert "Ready to accept connections" in report


def test_a_test_that_leaves_a_key_for_ever_fails(report: str) -> None:
    """The fixture names the key when the test is over."""
    assert "ERROR test_it.py::test_that_leaves_a_key" in report
    assert "string: left" in report


def test_a_test_may_leave_the_server_paused_or_dead(report: str) -> None:
    """The next one finds it as good as new."""
    assert "1 failed, 4 passed, 1 error" in report
