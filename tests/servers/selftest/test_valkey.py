"""One server: it answers, it can be paused, killed and restarted, and it is gone afterwards."""

from __future__ import annotations

import contextlib
import os
import socket

import pytest
import redis
import redis.asyncio
from redis import exceptions

from tests.servers import Valkey, valkey


def test_it_answers_over_tcp_and_over_its_socket(redis_server: Valkey) -> None:
    """Both URLs lead to the same data."""
    with redis.Redis.from_url(redis_server.url) as one, redis.Redis.from_url(redis_server.unix_url) as other:
        one.set("name", "value", ex=60)
        assert other.get("name") == b"value"


@pytest.mark.anyio
@pytest.mark.parametrize("protocol", [2, 3])
async def test_the_url_chooses_the_protocol(redis_server: Valkey, protocol: int) -> None:
    """The server sees the RESP version that the URL names."""
    async with redis.asyncio.Redis.from_url(redis_server.url_for(protocol=protocol)) as client:
        info = await client.client_info()
    assert int(info["resp"]) == protocol


@pytest.mark.anyio
async def test_a_paused_server_times_out_and_goes_on(redis_server: Valkey) -> None:
    """Connections stay open while it is paused, and the next command after that is answered."""
    async with redis.asyncio.Redis.from_url(redis_server.url, socket_timeout=0.3) as client:
        await client.ping()
        redis_server.pause()
        with pytest.raises(exceptions.TimeoutError):
            await client.ping()
        redis_server.resume()
        assert await client.ping()


def test_a_killed_server_refuses_and_comes_back_on_its_port() -> None:
    """Killing closes the port; starting again opens the same one in another process, without the data."""
    with valkey() as server:
        port, pid = server.port, server.pid
        server.execute("SET", "name", "value")
        server.kill()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
        server.start()
        assert server.port == port
        assert server.pid != pid
        assert server.execute("GET", "name") is None


def test_a_restart_keeps_the_data_when_asked_to_and_is_another_history() -> None:
    """With `empty=False` the data are there again; both kinds change the replication id."""
    with valkey() as server:
        ids = [server.info("replication")["master_replid"]]
        server.execute("SET", "name", "value")
        server.restart(empty=False)
        assert server.execute("GET", "name") == "value"
        ids.append(server.info("replication")["master_replid"])
        server.restart()
        assert server.execute("GET", "name") is None
        ids.append(server.info("replication")["master_replid"])
        assert len(set(ids)) == 3


def test_a_paused_server_can_be_restarted(redis_server: Valkey) -> None:
    """A restart of a paused server does not wait for it."""
    redis_server.pause()
    redis_server.restart()
    assert redis_server.execute("PING")


def test_users_may_do_what_their_rules_say(redis_server: Valkey) -> None:
    """The URL of a user logs in as it, in commands and in scripts."""
    url = redis_server.add_user("app", "secret", "~*", "&*", "+@all", "-info")
    with redis.Redis.from_url(url) as client:
        client.set("name", "value", ex=60)
        with pytest.raises(exceptions.NoPermissionError):
            client.info()
        with pytest.raises(exceptions.ResponseError, match="ACL failure in script"):
            client.eval("return redis.pcall('INFO', 'replication')", 0)


def test_a_password_is_asked_for() -> None:
    """A server with a password starts, and lets in only who has it."""
    with valkey({"requirepass": "secret"}) as server:
        with redis.Redis.from_url(server.url_for("", "secret")) as client:
            assert client.ping()
        with redis.Redis.from_url(server.url) as client, pytest.raises(exceptions.AuthenticationError):
            client.ping()


def test_settings_hold_for_a_block(redis_server: Valkey) -> None:
    """A server made full refuses writes, and takes them again afterwards."""
    with redis_server.configured(maxmemory=1), pytest.raises(exceptions.OutOfMemoryError):
        redis_server.execute("SET", "name", "value")
    redis_server.execute("SET", "name", "value", "EX", 60)


def test_a_server_that_cannot_start_says_why() -> None:
    """A wrong setting fails at once with the server's own words."""
    with pytest.raises(AssertionError, match="no-such-setting"), valkey({"no-such-setting": "1"}):
        pass


def test_nothing_is_left_of_it_when_the_block_fails() -> None:
    """Process, files and port are gone, also when it was paused."""

    def fail() -> None:
        raise KeyError

    with contextlib.suppress(KeyError), valkey() as server:
        server.pause()
        fail()
    assert not server.child.alive
    assert not server.directory.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(server.pid, 0)
