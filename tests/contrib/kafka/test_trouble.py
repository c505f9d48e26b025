"""A broker that is not there, is not trusted or does not trust: said clearly, tried again, without a secret in it."""

from __future__ import annotations

import socketserver
import struct
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import pytest

from fastapi_cacheinval import ConfigurationError, HTTPCache
from fastapi_cacheinval.contrib.kafka import KafkaSource
from tests.contrib.kafka.broker import Kafka
from tests.contrib.kafka.sources import done, joined, named
from tests.helpers.fleet import eventually
from tests.servers import tls_terminator
from tests.servers.ports import free_port

pytestmark = pytest.mark.anyio

SECRET = "the password itself"


async def troubled(config: dict[str, Any], caplog: pytest.LogCaptureFixture) -> str:
    """What a source says that cannot get through; it has been tried again, and was logged once."""
    caplog.set_level("DEBUG")
    source = KafkaSource(HTTPCache(), config, ["changes"], tags=named)
    async with source.cache, source:
        await eventually(lambda: source.state().failures >= 3, "more than one attempt")
        state = source.state()
        assert state.running
        assert not state.connected
    errors = [record for record in caplog.records if record.levelname == "ERROR"]
    assert len(errors) == 1, errors
    assert SECRET not in caplog.text + state.trouble + repr(source)
    return state.trouble


async def test_a_broker_that_is_not_there(caplog: pytest.LogCaptureFixture) -> None:
    """The address and the reason."""
    port = free_port()
    trouble = await troubled({"bootstrap.servers": f"127.0.0.1:{port}", "group.id": "g"}, caplog)
    assert "BrokerUnreachable" in trouble
    assert f"127.0.0.1:{port}" in trouble
    assert "refused" in trouble


async def test_a_name_that_is_not_known(caplog: pytest.LogCaptureFixture) -> None:
    """The name, and that it cannot be resolved."""
    trouble = await troubled({"bootstrap.servers": "nowhere.invalid:9092", "group.id": "g"}, caplog)
    assert "nowhere.invalid" in trouble
    assert "resolve" in trouble.lower()


async def test_a_certificate_that_is_not_trusted(broker: Kafka, caplog: pytest.LogCaptureFixture) -> None:
    """It says that it could not be verified."""
    with tls_terminator(broker.port) as proxy:
        config = {
            "bootstrap.servers": f"127.0.0.1:{proxy.port}",
            "security.protocol": "ssl",
            "group.id": "g",
            "sasl.password": SECRET,
        }
        trouble = await troubled(config, caplog)
    assert "certificate verify failed" in trouble


class _Refusing(socketserver.BaseRequestHandler):
    """Enough of a broker to refuse a password: ApiVersions, SaslHandshake, SaslAuthenticate."""

    def handle(self) -> None:
        while True:
            head = self._read(4)
            request = self._read(struct.unpack(">i", head)[0]) if head else b""
            if not request:
                return
            api, version, correlation = struct.unpack(">hhi", request[:8])
            answer = struct.pack(">i", correlation) + self._answer(api, version)
            self.request.sendall(struct.pack(">i", len(answer)) + answer)

    def _read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            more = self.request.recv(count - len(data))
            if not more:
                return b""
            data += more
        return data

    def _answer(self, api: int, version: int) -> bytes:
        if api == 18:
            known = [(17, 0, 1), (18, 0, 0), (36, 0, 0), (3, 0, 4)]
            if version > 0:
                # As old brokers answer to a version that they do not know.
                return (
                    struct.pack(">h", 35)
                    + struct.pack(">i", len(known))
                    + b"".join(struct.pack(">hhh", *each) for each in known)
                )
            return struct.pack(">hi", 0, len(known)) + b"".join(struct.pack(">hhh", *each) for each in known)
        if api == 17:
            return struct.pack(">hi", 0, 1) + struct.pack(">h", 5) + b"PLAIN"
        reason = b"Invalid username or password"
        return struct.pack(">h", 58) + struct.pack(">h", len(reason)) + reason + struct.pack(">i", 0)


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that are gone are no errors."""


@contextmanager
def refusing() -> Generator[int]:
    """The port of a broker that takes no password."""
    with _Server(("127.0.0.1", 0), _Refusing) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


async def test_a_password_that_is_wrong(caplog: pytest.LogCaptureFixture) -> None:
    """The broker's reason, and no word of the password."""
    with refusing() as port:
        config = {
            "bootstrap.servers": f"127.0.0.1:{port}",
            "security.protocol": "sasl_plaintext",
            "sasl.mechanism": "PLAIN",
            "sasl.username": "purger",
            "sasl.password": SECRET,
            "group.id": "g",
        }
        trouble = await troubled(config, caplog)
    assert "Invalid username or password" in trouble


async def test_a_broker_that_comes_later(broker: Kafka) -> None:
    """The app starts without it, and what it has kept is read when it is there."""
    broker.send("item:a")
    broker.away()
    source = KafkaSource(HTTPCache(), broker.config(), [broker.topic], tags=named)
    async with source.cache, source:
        await eventually(lambda: source.state().failures, "an attempt that fails")
        broker.back()
        await done(source, 1)
        state = source.state()
        assert (state.connected, state.trouble) == (True, "")


async def test_a_topic_that_is_not_there(broker: Kafka) -> None:
    """It is told; the other topics are read all the same, and it is read itself once it is made."""
    config = broker.config(topic_metadata_refresh_interval_ms=200)
    source = KafkaSource(HTTPCache(), config, [broker.topic, "missing"], tags=named)
    async with source.cache, source:
        await eventually(lambda: "missing" in source.state().trouble, "a word about it")
        await joined(source)
        broker.send("item:a")
        await done(source, 1)
        broker.create("missing")
        broker.send("item:b", topic="missing")
        await done(source, 2)


async def test_what_the_client_refuses_stops_the_start() -> None:
    """A setting that it does not know, or a file that is not there: told by name when the cache starts."""
    for name, value in (("no.such.setting", "1"), ("ssl.ca.location", "/no/such/file")):
        config = {"bootstrap.servers": "127.0.0.1:1", "group.id": "g", "security.protocol": "ssl", name: value}
        cache = HTTPCache()
        cache.attach(KafkaSource(cache, {**config, "sasl.password": SECRET}, ["changes"], tags=named))
        with pytest.raises(ConfigurationError, match=r"no\.such\.setting|ssl\.ca\.location") as error:
            await cache.start()
        assert SECRET not in str(error.value)
        await cache.stop()
