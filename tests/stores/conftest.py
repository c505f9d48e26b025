"""Stored responses as the pipeline makes them: every part a fresh object unless all responses share it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest

from fastapi_cacheinval.core.stored import Stamp, StoredResponse, share
from fastapi_cacheinval.core.tags import ALL

MakeResponse = Callable[..., StoredResponse]


def _make(number: int, *, body: int = 1024, tags: int = 3, variant: bool = False, now: float = 0.0) -> StoredResponse:
    digest = hashlib.blake2b(b"%d" % number, digest_size=32)
    etag = b'"%b"' % digest.hexdigest()[:32].encode()
    names = [f"product:{number}-{tag}" for tag in range(tags)]
    lines = [
        ("content-length", str(body)),
        ("content-type", "application/json"),
        ("cache-control", "no-cache"),
        ("x-release", f"2024.{number}"),
        *([("surrogate-key", " ".join(names[:40]))] if names else []),
    ]
    created = now + number / 1024 + 0.0001
    return StoredResponse(
        key=digest.digest(),
        status=200,
        headers=share([*((name.encode("latin-1"), value.encode("latin-1")) for name, value in lines), (b"etag", etag)]),
        body=bytes(body),
        etag=etag,
        last_modified=None,
        tags=(*names, f"\x01path:/products/{number}", ALL),
        vary=((bytes(bytearray(b"accept-language")), b"=%d:%d" % (len(str(number)), number)),) if variant else (),
        stamp=Stamp(0, 0, 0, created - 0.01),
        created=created,
        fresh_until=created + 300.0 + number % 30,
        early_refresh_from=created + 290.0 + number % 30,
        fill_seconds=0.01 + number / 1e9,
        early_refresh=1.0,
        stale_while_revalidate=60.0,
        stale_if_error=600.0,
        must_revalidate=False,
        anonymous=True,
    )


@pytest.fixture
def make_response() -> MakeResponse:
    """Make the response number so and so: a body of that many bytes, that many tags of its own."""
    return _make
