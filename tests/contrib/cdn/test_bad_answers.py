"""Answers that are none: too long, broken off, from elsewhere, from nobody, from somebody else."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme

from fastapi_cacheinval.contrib.cdn import CDN
from tests.contrib.cdn.fakes import TOKEN, Fake, FakeFastly, Purged, serving
from tests.contrib.cdn.purging import BOTH, confirmed, fastly, purging, state_of
from tests.helpers.fleet import eventually

pytestmark = pytest.mark.anyio


@pytest.fixture
def tls(tmp_path: Path) -> tuple[dict[str, str], ssl.SSLContext]:
    """What a server with a certificate of its own authority is started with, and who trusts it."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    key.write_bytes(issued.private_key_pem.bytes())
    certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    return {"ssl_certfile": str(certificate), "ssl_keyfile": str(key)}, trusting


async def test_a_wrong_certificate_is_a_clear_error_and_loses_nothing(tls: Any, caplog: Any) -> None:
    """Nothing is sent to whoever shows it; the state says what is wrong and what helps."""
    server, _ = tls
    with serving(FakeFastly(), **server) as fake:
        async with purging(fastly(fake), bound=0.3) as (cache, _):
            await cache.invalidate("a")
            await eventually(lambda: state_of(cache).trouble, "the trouble")
            state = state_of(cache)
            assert "has a certificate that is not trusted" in state.trouble
            assert "verify=ssl.create_default_context" in state.trouble
            assert state.waiting == 1
            assert fake.requests == []
    assert TOKEN not in caplog.text


async def test_a_certificate_of_ones_own_authority_is_trusted_where_it_is_named(tls: Any) -> None:
    """`verify=` takes an SSL context."""
    server, trusting = tls
    with serving(FakeFastly(), **server) as fake:
        async with purging(fastly(fake), verify=trusting) as (cache, _):
            await cache.invalidate("a")
            await confirmed(fake, 1)


@BOTH
async def test_ten_megabytes_are_not_read(kind: type[Fake], made: Callable[..., CDN]) -> None:
    """What is longer than 64 KiB confirms nothing, and the connection is closed on the rest."""
    with serving(kind()) as fake:
        fake.faults.append("long")
        async with purging(made(fake)) as (cache, purger):
            await purger.purge(await cache.invalidate("a"))
            await eventually(lambda: fake.left_early == 1, "the end of the connection")
            assert fake.purged == [Purged(("a",))]
            assert len(fake.requests) == 2


async def test_who_does_not_answer_is_given_up_in_time() -> None:
    """`timeout` is for the whole request, and the next attempt goes through."""
    with serving(FakeFastly()) as fake:
        fake.faults.append("hang")
        async with purging(fastly(fake), timeout=0.3) as (cache, _):
            began = time.monotonic()
            await cache.invalidate("a")
            await eventually(lambda: "did not answer within 0.3 s" in state_of(cache).trouble, "the trouble")
            assert time.monotonic() - began < 5
            await confirmed(fake, 1)


async def test_a_redirection_is_not_followed() -> None:
    """A purge, with its token, goes nowhere but where it was sent."""
    with serving(FakeFastly()) as fake:
        fake.always = "redirect"
        async with purging(fastly(fake), bound=0.3) as (cache, _):
            await cache.invalidate("a")
            await eventually(lambda: "307" in state_of(cache).trouble, "the trouble")
            assert fake.purged == []


async def test_nobody_there() -> None:
    """A port that refuses: the purge waits until somebody listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        fake = FakeFastly()
        fake.url = f"http://127.0.0.1:{port}"
        async with purging(fastly(fake), bound=0.3) as (cache, _):
            await cache.invalidate("a")
            await eventually(lambda: f"127.0.0.1:{port} could not be asked" in state_of(cache).trouble, "the trouble")
            assert state_of(cache).waiting == 1


async def test_a_proxy_is_asked_where_it_is_named() -> None:
    """The request goes to it, whatever the environment says, with the CDN's own address in it."""
    heard: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readuntil(b"\r\n"))
        writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 14\r\nConnection: close\r\n\r\n{"a": "1-2-3"}')
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        fake = FakeFastly()
        fake.url = "http://fastly.invalid"
        async with purging(fastly(fake), proxy=f"http://127.0.0.1:{port}") as (cache, purger):
            await purger.purge(await cache.invalidate("a"))
    assert heard[0].startswith(b"POST http://fastly.invalid/service/")


def test_without_httpx_the_error_says_what_to_install() -> None:
    """The extra is named."""
    program = "import sys; sys.modules['httpx'] = None; import fastapi_cacheinval.contrib.cdn"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ended.stderr.splitlines()[-1].endswith("pip install 'fastapi-cacheinval[cdn]'")
    assert "ImportError" in ended.stderr
