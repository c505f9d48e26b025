"""The page and its two files, as they lie in the package."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

__all__ = ["asset", "page"]

_TYPES = {
    "inspector.css": "text/css; charset=utf-8",
    "inspector.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
_TOKEN = "TOKEN-OF-THIS-PAGE"  # noqa: S105  # what stands in its place in the file


@cache
def _read(name: str) -> bytes:
    return files("fastapi_cacheinval.inspector").joinpath("static", name).read_bytes()


def asset(name: str) -> tuple[bytes, str] | None:
    """A file of the page and its media type; None for a name that is none of them."""
    kind = _TYPES.get(name)
    return None if kind is None else (_read(name), kind)


def page(token: str) -> bytes:
    """The page, with its token in it, which has no character that means anything in HTML."""
    return _read("index.html").replace(_TOKEN.encode(), token.encode())
