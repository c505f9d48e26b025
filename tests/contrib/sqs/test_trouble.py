"""SQS says no, or nothing: what is told is clear, and holds no secret."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from fastapi_cacheinval import HTTPCache, SourceState
from fastapi_cacheinval.contrib.sqs import QueueUnavailable, SQSSource
from fastapi_cacheinval.contrib.sqs.addresses import Address
from fastapi_cacheinval.contrib.sqs.trouble import unavailable
from tests.contrib.sqs.cloud import SOON, Cloud
from tests.helpers.fleet import eventually
from tests.servers import tls_terminator
from tests.servers.ports import free_port

pytestmark = pytest.mark.anyio

KEY, SECRET, TOKEN = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMIbPxRfiCYEXAMPLEKEY", "FwoGZXIvYXdzEXAMPLETOKEN"
WITH_SECRETS = {"aws_access_key_id": KEY, "aws_secret_access_key": SECRET, "aws_session_token": TOKEN}


async def troubled(queue_url: str, caplog: pytest.LogCaptureFixture, **options: Any) -> str:
    """The trouble of a source once it has failed twice; no secret is anywhere."""
    caplog.set_level(logging.DEBUG, "fastapi_cacheinval")
    cache = HTTPCache()
    source = SQSSource(cache, queue_url, **{**SOON, **options})
    cache.attach(source)
    async with cache:
        await eventually(lambda: source.state().failures >= 2, "two failures")
        state = source.state()
        assert (state.running, state.connected) == (True, False)
        assert isinstance(cache.statistics().sources["sqs"], SourceState)
    for secret in (KEY, SECRET, TOKEN, "a secret of a test"):
        assert secret not in caplog.text + repr(source) + repr(state) + repr(source.__dict__)
    ours = [record for record in caplog.records if record.name.startswith("fastapi_cacheinval")]
    errors = [record for record in ours if record.levelno >= logging.WARNING]
    assert len(errors) == 1, caplog.text
    return state.trouble.removeprefix("QueueUnavailable: ")


@asynccontextmanager
async def answering(status: int, body: dict[str, str]) -> AsyncIterator[str]:
    """What answers every call like this: a server in AWS's place that is not content."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        await reader.readexactly(int(head.split("content-length:")[1].split("\r\n")[0]))
        payload = json.dumps(body).encode()
        headers = (
            f"HTTP/1.1 {status} No\r\nContent-Type: application/x-amz-json-1.0\r\nContent-Length: {len(payload)}\r\n"
        )
        writer.write(headers.encode() + b"Connection: close\r\n\r\n" + payload)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/123456789012/purges"


async def test_a_queue_that_is_missing(cloud: Cloud, caplog: pytest.LogCaptureFixture) -> None:
    """Its name is told, and what may be wrong with it; once it is made all goes well."""
    trouble = await troubled(f"{cloud.url}/123456789012/nowhere", caplog)
    assert trouble == (
        f"GetQueueAttributes: there is no queue nowhere at {cloud.url} (AWS.SimpleQueueService.NonExistentQueue): "
        "check its name, account and region"
    )


async def test_a_queue_of_another_region(cloud: Cloud, caplog: pytest.LogCaptureFixture) -> None:
    """Where the URL does not tell the region, SQS does not find the queue in the wrong one."""
    trouble = await troubled(cloud.queue(), caplog, region="us-east-1")
    assert "check its name, account and region" in trouble


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (403, "InvalidClientTokenId", "the credentials are refused (InvalidClientTokenId)"),
        (403, "SignatureDoesNotMatch", "the credentials are refused (SignatureDoesNotMatch)"),
        (403, "ExpiredToken", "the credentials are refused (ExpiredToken)"),
        (400, "OverLimit", "answered OverLimit"),
    ],
)
async def test_credentials_that_are_wrong(status: int, code: str, said: str, caplog: pytest.LogCaptureFixture) -> None:
    """The code that AWS gave is told; what it writes beside that quotes the request, and is not."""
    quoted = (
        f"The Canonical String for this request should have been 'POST x-amz-security-token:{TOKEN}' {KEY} {SECRET}"
    )
    async with answering(status, {"__type": f"com.amazonaws.sqs#{code}", "message": quoted}) as queue:
        trouble = await troubled(queue, caplog, client_options=WITH_SECRETS)
    assert said in trouble


async def test_what_the_credentials_do_not_allow(caplog: pytest.LogCaptureFixture) -> None:
    """The permission that is missing is named; without that to ask for the queue's length the rest is tried all the same."""
    denied = {"__type": "com.amazonaws.sqs#AccessDeniedException", "message": f"User {KEY} is not authorized"}
    async with answering(403, denied) as queue:
        trouble = await troubled(queue, caplog, client_options=WITH_SECRETS)
    assert trouble == (
        "ReceiveMessage: the credentials do not allow it: they need sqs:ReceiveMessage on purges (AccessDeniedException)"
    )


async def test_without_credentials(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing in the options, the environment, the files or the machine: that is what is said."""
    queue = cloud.queue()
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    assert await troubled(queue, caplog) == "GetQueueAttributes: no credentials were found"


async def test_half_of_the_credentials(cloud: Cloud, caplog: pytest.LogCaptureFixture) -> None:
    """A key without its secret is told as that."""
    trouble = await troubled(cloud.queue(), caplog, client_options={"aws_access_key_id": KEY})
    assert trouble == "connecting: the credentials are incomplete"


async def test_nobody_listens(cloud: Cloud, caplog: pytest.LogCaptureFixture) -> None:
    """The endpoint is named."""
    port = free_port()
    trouble = await troubled(f"http://127.0.0.1:{port}/1/q", caplog)
    assert trouble == f"GetQueueAttributes: http://127.0.0.1:{port} cannot be reached"


async def test_a_certificate_that_is_not_trusted(cloud: Cloud, caplog: pytest.LogCaptureFixture) -> None:
    """It is not talked to; with the authority's certificate it is."""
    queue = cloud.queue()
    with tls_terminator(cloud.port) as proxy:
        endpoint = f"https://127.0.0.1:{proxy.port}"
        trouble = await troubled(queue, caplog, endpoint_url=endpoint)
        assert trouble == (f"GetQueueAttributes: the certificate of {endpoint} is not trusted, or it speaks no TLS")
        cache = HTTPCache()
        source = SQSSource(cache, queue, endpoint_url=endpoint, client_options={"verify": str(proxy.ca_file)}, **SOON)
        cache.attach(source)
        async with cache:
            cloud.send(queue, {"tags": ["a"]})
            await eventually(lambda: source.state().done, "the message")
        # Before the proxy goes: what it has not closed by then it would leave to the garbage collector.
        await eventually(lambda: not proxy.open, "the end of all connections")


async def test_an_answer_that_is_none(caplog: pytest.LogCaptureFixture) -> None:
    """A server that is no SQS is trouble like another."""
    async with answering(200, {"hello": "world"}) as queue:
        trouble = await troubled(queue, caplog, client_options=WITH_SECRETS)
    assert trouble.startswith("GetQueueAttributes: KeyError at http://127.0.0.1:")


def test_errors_that_nobody_knows_are_named_and_not_quoted() -> None:
    """Of an error that is not in the tables only its type is told."""
    address = Address("https://sqs.eu-west-1.amazonaws.com/1/q", "eu-west-1", None)
    error = unavailable(RuntimeError(SECRET), "ReceiveMessage", address)
    assert str(error) == "ReceiveMessage: RuntimeError at SQS in eu-west-1"
    assert (error.code, error.denied) == ("RuntimeError", False)
    assert isinstance(error, QueueUnavailable)


async def test_the_users_own_session_is_used(cloud: Cloud) -> None:
    """A session with credentials of its own, as from a profile, and a config of its own, are what the client is made with."""
    from importlib import import_module

    session = import_module("aiobotocore.session").get_session()
    session.set_credentials("AKIAOFASESSION", "its secret")
    config = import_module("aiobotocore.config").AioConfig(user_agent_extra="shop/1.0")
    queue = cloud.queue()
    cache = HTTPCache()
    source = SQSSource(cache, queue, session=session, client_options={"config": config}, **SOON)
    cache.attach(source)
    async with cache:
        cloud.send(queue, {"tags": ["a"]})
        await eventually(lambda: source.state().done, "the message")
