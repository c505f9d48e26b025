"""What `from_url` and `from_client` take, and what they say of the rest, before anything is sent anywhere."""

from __future__ import annotations

from typing import Any

import pytest
import redis
from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.sentinel import Sentinel

from fastapi_cacheinval import ConfigurationError, HTTPCache

GOOD = [
    "memory://",
    "redis://localhost",
    "redis:///0",
    "redis://localhost:6379/3",
    "redis://localhost/0?protocol=3",
    "redis://localhost/0?encoding=latin-1",
    "redis://user:p%2Fss@localhost:6379",
    "redis://[::1]:6379/0",
    "valkey://localhost",
    "valkeys://localhost",
    "rediss://localhost/0?ssl_cert_reqs=none",
    "unix:///var/run/redis.sock",
    "unix://user:pass@/var/run/redis.sock?db=2",
    "redis+cluster://127.0.0.1:7000,127.0.0.1:7001",
    "redis+cluster://user:pass@[::1]:7000,[::1]:7001",
    "rediss+cluster://127.0.0.1:7000",
    "redis+sentinel://one:26379,two/service/0",
    "valkey+sentinel://user:pass@one/service?sentinel_password=other",
    "rediss+sentinel://one/service?ssl_cert_reqs=none",
]

BAD: list[tuple[Any, str]] = [
    (None, "as a str"),
    (b"redis://localhost", "as a str"),
    ("", "with its scheme"),
    ("localhost:6379", "with its scheme"),
    ("http://localhost", "does not know http://"),
    ("redis+other://localhost", "does not know redis\\+other://"),
    ("unix+cluster:///x", "does not know unix\\+cluster://"),
    ("redis://", "names no server"),
    ("redis://localhost:99999", "port is no number"),
    ("redis://localhost:abc", "port is no number"),
    ("redis://localhost/first", "no number of a database"),
    ("redis://localhost/0?nonsense=1", "nonsense"),
    ("redis://localhost/0?protocol=9", "protocol"),
    ("redis://localhost/0?socket_timeout=long", "socket_timeout"),
    ("redis://localhost/0?decode_responses=true", "decode_responses"),
    ("redis://localhost/0?encoding=utf-16", "encoding"),
    ("redis+sentinel://one:1/service?encoding=utf-32", "encoding"),
    ("redis+cluster://127.0.0.1:1?encoding=utf-16", "encoding"),
    ("rediss://localhost/0?ssl_cert_reqs=perhaps", "SSL"),
    ("unix://relative/path", "whole path"),
    ("unix:///", "whole path"),
    ("redis+cluster://127.0.0.1:1,127.0.0.1:x", "port is no number"),
    ("redis+cluster://127.0.0.1:1?nonsense=1", "nonsense"),
    ("redis+cluster://127.0.0.1:1/3", "db"),
    ("redis+cluster://127.0.0.1:1?decode_responses=true", "decode_responses"),
    ("redis+sentinel://one:1", "names its service"),
    ("redis://local\ud800host", "UTF-8"),
    ("redis://localhost/0?password=\ud800", "UTF-8"),
    ("redis+sentinel://one:1/serv\ud800ice", "UTF-8"),
    ("redis+cluster://127.0.0.1:1,\ud800:2", "UTF-8"),
    ("redis+sentinel://one:1/service/first", "no number of a database"),
    ("redis+sentinel://one:1/service?nonsense=1", "nonsense"),
    ("redis+sentinel://one:1/service?sentinel_nonsense=1", "nonsense"),
]


@pytest.mark.parametrize("url", GOOD)
def test_urls_that_users_of_redis_py_would_guess_are_taken(url: str) -> None:
    """A cache is made of each; no server needs to be there."""
    assert HTTPCache.from_url(url).settings.namespace == "cacheinval"


@pytest.mark.parametrize(("url", "says"), BAD)
def test_a_url_that_cannot_work_is_a_configuration_error(url: Any, says: str) -> None:
    """What is wrong is said when the cache is made, and not at night when it is first used."""
    with pytest.raises(ConfigurationError, match=says):
        HTTPCache.from_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "us:hunter2@localhost:6379",
        "redis://us:hunter2/x@localhost",
        "redis+cluster://us:hunter2@127.0.0.1:x",
        "redis://us:hunter2@localhost/0?nonsense=1",
        "http://us:hunter2@localhost",
        "redis://us:[hunter2]@localhost",
        "redis://us:hunter2\u2100@localhost",
        "redis://us:12/hunter2@localhost:6379/0",
        "redis+cluster://us:[hunter2]@localhost,other",
        "redis+sentinel://us:12/service/hunter2@localhost",
        "redis://us:hunter2\ud800@localhost",
    ],
)
def test_no_error_repeats_a_password(url: str) -> None:
    """Errors end in logs; what the URL holds of a password does not."""
    with pytest.raises(ConfigurationError) as caught:
        HTTPCache.from_url(url)
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in repr(caught.value.__cause__)


@pytest.mark.parametrize(
    ("client", "says"),
    [
        (redis.Redis(), "redis.client.Redis"),
        (object(), "builtins.object"),
        ("redis://localhost", "builtins.str"),
        (Sentinel([("127.0.0.1", 1)]), "Sentinel"),
        (Redis(decode_responses=True), "decode_responses"),
        (Redis().pipeline(), "client.Pipeline"),
        (Redis(encoding="utf-16"), "encoding"),
        (Redis(encoding="klingon"), "encoding"),
        (RedisCluster(host="127.0.0.1", encoding="utf-16"), "encoding"),
        (RedisCluster(host="127.0.0.1", decode_responses=True), "decode_responses"),
        (Sentinel([("127.0.0.1", 1)], decode_responses=True).master_for("x"), "decode_responses"),
    ],
)
def test_a_client_that_cannot_work_is_a_configuration_error(client: Any, says: str) -> None:
    """A synchronous one, something else, a Sentinel itself, one that decodes replies, one that writes what no server reads."""
    with pytest.raises(ConfigurationError, match=says):
        HTTPCache.from_client(client)
