"""What `CORSMiddleware` outside of the cache writes into an answer, as the protocol learns it."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.datastructures import MutableHeaders
from starlette.middleware.cors import CORSMiddleware

from fastapi_cacheinval.framework.cors_outside import varied_by, with_vary


class Layer:
    """A layer that changes the fields of every answer."""

    app: Any = None

    def __init__(self, change: Any) -> None:
        self._change = change

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def changed(message: Any) -> None:
            self._change(MutableHeaders(scope=message))
            await send(message)

        await self.app(scope, receive, changed)


def _varies(headers: MutableHeaders) -> None:
    headers["Vary"] = ", ".join([*headers.getlist("Vary"), "Origin"])


@pytest.mark.parametrize(
    ("changes", "added"),
    [
        ([], b""),
        ([lambda headers: None], b""),
        ([_varies], b"Origin"),
        ([_varies, lambda headers: None, _varies], b"Origin, Origin"),
        ([lambda headers: headers.append("x-more", "1")], None),
        ([_varies, lambda headers: headers.append("vary", "Origin")], None),
        ([lambda headers: headers.__setitem__("vary", "Origin")], None),
        ([lambda headers: headers.__delitem__("x-other")], None),
    ],
)
def test_what_layers_add_is_seen_or_they_are_said_to_do_more(changes: list[Any], added: bytes | None) -> None:
    """A release that wrote another field, or the same in another way, would turn the protocol off."""
    assert varied_by([Layer(change) for change in changes]) == added


def test_the_installed_release_is_understood() -> None:
    """It writes `Vary: Origin`, or nothing, whatever origins it allows."""
    all_options: list[dict[str, Any]] = [
        {"allow_origins": ["*"]},
        {"allow_origins": ["https://a.example"], "allow_credentials": True},
    ]
    for options in all_options:
        added = varied_by([CORSMiddleware(Layer(_varies), **options)])
        assert added is not None
        assert added in {b"", b"Origin"}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (b"", b"vary: Origin\r\n"),
        (b"a: 1\r\n", b"a: 1\r\nvary: Origin\r\n"),
        (b"vary: a\r\nb: 1\r\n", b"vary: a, Origin\r\nb: 1\r\n"),
        (b"a: 1\r\nvary: a\r\nb: vary: 2\r\nvary: b\r\n", b"a: 1\r\nvary: a, b, Origin\r\nb: vary: 2\r\n"),
        (b"x-vary: a\r\n", b"x-vary: a\r\nvary: Origin\r\n"),
    ],
)
def test_names_join_the_vary_that_is_there(fields: bytes, expected: bytes) -> None:
    """In one line, in place of the first, as Starlette writes a field."""
    assert with_vary(fields, b"Origin") == expected
