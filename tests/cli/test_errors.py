"""Whatever is wrong, a command says so in a line or two, with what to do and an exit code; never a traceback."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import redis

from tests.cli.calls import BARE, ROOT
from tests.cli.fleets import watched
from tests.servers import Valkey, cluster
from tests.servers.ports import free_port

pytestmark = pytest.mark.anyio

COMMANDS = (
    ("stats",), ("top", "--once"), ("tail", "--no-follow"), ("purge", "a"), ("clear", "--yes"), ("explain", "/a"),
    ("doctor",),
)  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
async def test_a_redis_that_is_not_there(cli: Any, command: tuple[str, ...]) -> None:
    """Exit code 3, the address, and no password."""
    shown = await cli(*command, url=f"redis://someone:hunter2@127.0.0.1:{free_port()}/0")
    assert (shown.code, shown.out) == (3, "")
    assert "cannot be used" in shown.err
    assert "whether the server runs" in shown.err
    assert "hunter2" not in shown.err


@pytest.mark.parametrize("command", COMMANDS)
async def test_a_redis_that_needs_a_password(redis_server: Valkey, cli: Any, command: tuple[str, ...]) -> None:
    """None, a wrong one, and a user who may do nothing: each is told apart."""
    redis_server.execute("ACL", "SETUSER", "nobody", "on", ">pw")
    redis_server.execute("CONFIG", "SET", "requirepass", "secret")
    try:
        none = await cli(*command)
        assert none.code == 3
        assert "needs a password" in none.err
        wrong = await cli(*command, url=redis_server.url.replace("redis://", "redis://:nonsense@"))
        assert wrong.code == 3
        assert "password in the URL is wrong" in wrong.err
        assert "nonsense" not in wrong.err
        nobody = await cli(*command, url=redis_server.url.replace("redis://", "redis://nobody:pw@"))
        assert nobody.code == (1 if command == ("doctor",) else 3)
        assert command == ("doctor",) or "may not do that" in nobody.err
    finally:
        redis_server.client.execute_command("AUTH", "secret")
        redis_server.execute("CONFIG", "SET", "requirepass", "")
        redis_server.execute("ACL", "DELUSER", "nobody")


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "--url redis://"),
        ("nonsense", "with its scheme"),
        ("http://localhost", "does not know http://"),
        ("redis://", "names no server"),
        ("redis://localhost:port/0", "port"),
        ("redis://localhost/zero", "'zero'"),
        ("memory://", "nothing can be seen from outside"),
        ("redis://localhost?decode_responses=1", "decode_responses"),
    ],
)
async def test_a_url_that_names_no_redis(cli: Any, url: str, says: str) -> None:
    """Exit code 2, as for any wrong call."""
    shown = await cli("stats", "--url", url)
    assert (shown.code, shown.out) == (2, "")
    assert says in shown.err


async def test_a_redis_that_is_silent(redis_server: Valkey, cli: Any) -> None:
    """It is waited for as long as `--timeout` says, and no longer."""
    redis_server.pause()
    shown = await cli("stats", "--timeout", "0.2")
    assert shown.code == 3
    assert "no answer in time" in shown.err
    assert "--timeout" in shown.err


async def test_tls_is_said_to_be_asked_of_a_server_that_may_have_none(redis_server: Valkey, cli: Any) -> None:
    """A server without TLS waits for more, so nothing but the scheme tells what is wrong."""
    shown = await cli("stats", "--timeout", "0.2", url=redis_server.url.replace("redis://", "rediss://"))
    assert shown.code == 3
    assert "without TLS" in shown.err


async def test_an_empty_path_is_no_path(redis_server: Valkey, cli: Any) -> None:
    """A variable of a script that is not set does not purge the page at the root."""
    async with watched(redis_server, 1) as (node,):
        shown = await cli("purge", "--path", "")
        assert (shown.code, shown.out) == (2, "")
        assert "A path is empty" in shown.err
        assert not node.cache.statistics().applied


async def test_a_server_that_is_no_redis(cli: Any) -> None:
    """What answers HTTP is told to be none, in one line."""
    import asyncio

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n\x1b[31m")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        shown = await cli("stats", url=f"redis://127.0.0.1:{port}")
    assert shown.code == 3
    assert "\x1b" not in shown.err
    assert len(shown.err.splitlines()) <= 2


async def test_a_key_of_another_type_in_the_place_of_the_log(redis_server: Valkey, cli: Any) -> None:
    """Somebody else uses the name."""
    redis_server.execute("SET", "{cacheinval}:state", "a text", "EX", "60")
    for command in COMMANDS:
        shown = await cli(*command)
        assert shown.code in (1, 3), command
        assert "Traceback" not in shown.err
        assert "WRONGTYPE" in shown.err + shown.out


@pytest.mark.parametrize("ack", ["1 1 0", "1 1 -5000000", "1 1 99999999999999999999", "1 1", "\x1b[31m"])
async def test_an_acknowledgement_that_no_replica_has_written_holds_up_no_purge(
    ack: str, redis_server: Valkey, cli: Any
) -> None:
    """Whoever may write to Redis may write one; every command goes on without it."""
    async with watched(redis_server, 1):
        redis_server.execute("HSET", "{cacheinval}:acks", "forged", ack)
        # Nobody can say that it has applied a purge, so none is waited for.
        for command in (("purge", "a", "--no-wait"), ("clear", "--yes", "--no-wait"), ("stats",), ("top", "--once")):
            shown = await cli(*command)
            assert shown.code == 0, (command, shown)
            assert "\x1b" not in shown.out + shown.err


async def test_a_line_of_the_log_from_no_time_that_there_is(redis_server: Valkey, cli: Any) -> None:
    """It is shown without its time."""
    async with watched(redis_server, 1) as (node,):
        await node.cache.invalidate("item:a")
        with redis.Redis(port=redis_server.port) as client:
            entries: Any = client.xrange("{cacheinval}:log")
            head, _, payload = entries[0][1][b"m"].partition(b"\n")
            forged = b" ".join([*head.split(b" ")[:-1], b"9" * 30])
            client.delete("{cacheinval}:log")
            client.xadd("{cacheinval}:log", {"n": b"forged", "m": forged + b"\n" + payload}, id="1-0")
        shown = await cli("tail", "--no-follow")
        assert shown.code == 0
        assert shown.out.startswith("– 1/1 hard item:a")
        assert (await cli("tail", "--no-follow", "--json")).code == 0
        assert (await cli("explain", "http://test/items/a")).code in (0, 1)


async def test_a_hostile_namespace_is_a_name(redis_server: Valkey, cli: Any) -> None:
    """Braces, spaces and escapes in it name other keys, and do not reach the terminal."""
    async with watched(redis_server, 1):
        shown = await cli("stats", "--namespace", "{cacheinval}:\x1b[31m")
        assert shown.code == 1
        assert "\x1b" not in shown.err
    assert (await cli("stats", "--namespace", "")).code == 2


@pytest.mark.timeout(120)
async def test_a_cluster(cli: Any) -> None:
    """Every command finds the node that has the log."""
    with cluster() as nodes:
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in nodes.nodes)
        url = f"redis+cluster://{hosts}"
        from fastapi_cacheinval import HTTPCache

        async with HTTPCache.from_url(url) as cache:
            await cache.invalidate("a")
        assert (await cli("stats", "--json", url=url)).json["log"]["seq"] == 1
        assert (await cli("purge", "b", "--no-wait", "--json", url=url)).json["seq"] == 2
        assert [each["tags"] for each in (await cli("tail", "--no-follow", "--json", url=url)).lines] == [["a"], ["b"]]
        found = (await cli("doctor", "--json", url=url)).json["findings"]
        assert {each["check"]: each["level"] for each in found}["version"] == "ok"


def test_without_the_extra_the_command_says_what_to_install() -> None:
    """The package works without click and rich; the command names the extra."""
    refuse = (
        "import sys, importlib.machinery as m\n"
        "find = m.PathFinder.find_spec\n"
        "m.PathFinder.find_spec = lambda name, *more: None if name.split('.')[0] in ('click', 'rich') else find(name, *more)\n"
        "from fastapi_cacheinval.cli.__main__ import main\n"
        "main()\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", refuse],
        capture_output=True, text=True, check=False, cwd=ROOT, env=BARE,
    )  # fmt: skip
    assert result.returncode == 2
    assert result.stderr == "cacheinval needs click and rich: pip install 'fastapi-cacheinval[cli]'\n"
