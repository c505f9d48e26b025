"""The one place that talks to CDNs: one request out, at most 64 KiB of the answer in, errors translated."""

from __future__ import annotations

import asyncio
import ssl
from types import TracebackType
from typing import Final, Self

from fastapi_cacheinval.contrib.cdn._checks import place
from fastapi_cacheinval.contrib.cdn.requests import Answer, PurgeRequest

try:
    import httpx
except ImportError as error:
    raise ImportError("fastapi_cacheinval.contrib.cdn needs httpx: pip install 'fastapi-cacheinval[cdn]'") from error

__all__ = ["MOST_OF_A_BODY", "Client", "Unreachable"]

MOST_OF_A_BODY: Final = 65_536
"""Bytes of an answer's body that are read."""


class Unreachable(Exception):  # stays inside: the lane that asked makes a pause of it
    """No answer came, or half of one."""


class Client:
    """Connections to CDNs, kept open between purges.

    The transport alone, without a client around it: nothing is redirected, no cookie is kept, no URL is logged, and no
    environment variable says where a secret goes.
    """

    def __init__(self, *, timeout: float, verify: ssl.SSLContext | None, proxy: str | None) -> None:
        self._timeout = timeout
        self._transport = httpx.AsyncHTTPTransport(verify=True if verify is None else verify, proxy=proxy)

    async def __aenter__(self) -> Self:
        await self._transport.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._transport.__aexit__(kind, error, trace)

    async def ask(self, request: PurgeRequest) -> Answer:
        """Send one request; raises `Unreachable` where no whole answer comes in time."""
        where = place(request.url)
        try:
            async with asyncio.timeout(self._timeout):
                return await self._asked(request)
        except TimeoutError:
            raise Unreachable(f"{where} did not answer within {self._timeout:g} s") from None
        except httpx.TimeoutException:
            raise Unreachable(f"{where} did not answer within {self._timeout:g} s") from None
        except httpx.HTTPError as error:
            raise Unreachable(f"{where} {_why(error)}") from None

    async def _asked(self, request: PurgeRequest) -> Answer:
        sent = httpx.Request(
            request.method,
            request.url,
            # As it is: what is compressed may be longer than what is read of it.
            headers=[("Accept-Encoding", "identity"), ("User-Agent", "fastapi-cacheinval"), *request.headers],
            content=request.body or None,
            extensions={"timeout": httpx.Timeout(self._timeout).as_dict()},
        )
        response = await self._transport.handle_async_request(sent)
        try:
            body = bytearray()
            assert isinstance(response.stream, httpx.AsyncByteStream)
            async for chunk in response.stream:
                body += chunk
                if len(body) > MOST_OF_A_BODY:
                    break
        finally:
            # Closes the connection where there is more to come.
            await response.aclose()
        headers = {name.lower(): value for name, value in response.headers.items()}
        return Answer(response.status_code, headers, bytes(body[:MOST_OF_A_BODY]), len(body) <= MOST_OF_A_BODY)


def _why(error: httpx.HTTPError) -> str:
    """What went wrong; texts that may repeat what was sent are left out."""
    text = str(error)
    if "CERTIFICATE_VERIFY_FAILED" in text:
        why = text.partition("certificate verify failed: ")[2].partition(" (_ssl")[0]
        return (
            f"has a certificate that is not trusted ({why or 'certificate verify failed'}): nothing was sent. If an "
            "authority of your own signed it, give CDNPurger verify=ssl.create_default_context(cafile=...)"
        )
    if isinstance(error, (httpx.ConnectError, httpx.RemoteProtocolError, httpx.ReadError)):
        return f"could not be asked: {type(error).__name__}: {text[:200]}"
    return f"could not be asked: {type(error).__name__}"
