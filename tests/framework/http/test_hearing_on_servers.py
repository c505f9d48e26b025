"""On real servers, over HTTP/1.1 and HTTP/2: streams that are not stored come whole, and the content of a GET arrives."""

from __future__ import annotations

import time
from collections.abc import Iterator

import httpx
import pytest

from tests.servers import processes
from tests.servers.processes import ServerName

APP = "tests.framework.http.served:served"
SERVERS: tuple[ServerName, ...] = ("uvicorn", "hypercorn", "granian")


@pytest.fixture(params=SERVERS, scope="module")
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """The app on one of the servers."""
    with processes(APP, 1, server=request.param) as fleet:
        yield fleet.urls[0]


@pytest.mark.parametrize(
    ("path", "size"), [("/dispatched", 200), ("/events", 200), ("/listens", 200), ("/large", 48 * 65_530)]
)
def test_a_stream_comes_whole(url: str, path: str, size: int) -> None:
    """Twice, since the key is marked after the first."""
    for _ in range(2):
        assert len(httpx.get(url + path).content) == size


def test_an_app_that_waits_for_its_client_to_go_hears_it(url: str) -> None:
    """After a response that is stored, the app's request ends with its client."""
    for _ in range(2):
        assert httpx.get(url + "/waits").content == b"said"
    deadline = time.monotonic() + 10
    while httpx.get(url + "/ended").content != b"1":
        assert time.monotonic() < deadline, "the app still waits"


def _pieces() -> Iterator[bytes]:
    yield b"as"
    yield b"ked"


def test_the_content_of_a_get_arrives(url: str) -> None:
    """With a length, in chunks, and none; what has content is not answered from what is stored."""
    with httpx.Client() as client:
        assert client.get(url + "/echo").content == b"<>"
        for content in (b"asked", _pieces()):
            assert client.request("GET", url + "/echo", content=content).content == b"<asked>"
        assert "hit" in client.get(url + "/echo").headers["cache-status"]


def test_content_that_no_field_announces_arrives_over_http_2() -> None:
    """HTTP/2 needs neither a length nor a transfer coding; before and after something is stored for the URL."""
    with (
        processes(APP, 1, server="hypercorn") as fleet,
        httpx.Client(http1=False, http2=True) as client,
    ):
        url = fleet.urls[0] + "/echo"
        for _ in range(2):
            answer = client.request("GET", url, content=_pieces())
            assert (answer.http_version, answer.content) == ("HTTP/2", b"<asked>")
            assert client.get(url).content == b"<>"
        assert "hit" in client.get(url).headers["cache-status"]
