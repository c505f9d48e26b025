"""URLs as commands show them: where the server is, and nothing of a credential."""

from __future__ import annotations

import pytest

from fastapi_cacheinval.cli.target import shown


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("redis://localhost", "redis://localhost"),
        ("redis://us:hunter2@localhost:6379/0", "redis://localhost:6379/0"),
        ("rediss://:hunter2@[::1]:6379/0?ssl_cert_reqs=none", "rediss://[::1]:6379/0"),
        ("redis+cluster://:hunter2@one:1,two:2", "redis+cluster://one:1,two:2"),
        ("redis+sentinel://us:hunter2@one:1,two/service/0", "redis+sentinel://one:1,two/service/0"),
        ("unix:///tmp/redis.sock?password=hunter2", "unix:///tmp/redis.sock"),
        ("redis://us:hunter2@odd@localhost", "redis://localhost"),
    ],
)
def test_a_url_is_shown_without_what_logs_in(url: str, told: str) -> None:
    """The scheme, the hosts, the database or the service."""
    assert shown(url) == told


@pytest.mark.parametrize(
    "url",
    [
        "redis://us:hunter2/x@localhost:6379/0",
        "redis://us:x/hunter2@localhost",
        "redis://us:hunter2?x@localhost",
        "redis://us:12?hunter2@localhost",
        "redis://us:hunter2#x@localhost",
        "redis://localhost/0?password=x@hunter2",
        "redis://:hunter2",
        "redis://us:hunter2@[::1/0",
        "us:hunter2@localhost",
    ],
)
def test_where_a_password_may_end_anywhere_no_place_is_shown(url: str) -> None:
    """One that is not percent-encoded cannot be told from the host."""
    assert "hunter2" not in shown(url)
    assert "…" in shown(url)
