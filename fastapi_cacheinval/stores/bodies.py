"""Compressing bodies for L2, where it pays."""

from __future__ import annotations

import zlib

from fastapi_cacheinval.grammar.fields import RawHeaders

__all__ = ["expanded", "squeezed"]

_AS_IS, _DEFLATED = 0, 1

# The seal makes a checksum of zlib's own superfluous.
_RAW = -15
_LEVEL = 1
_WORTH = 0.9
# So much of a large body tells whether the rest is worth trying.
_SAMPLE = 16 * 1024

_INCOMPRESSIBLE = (b"image/", b"video/", b"audio/", b"font/woff")
_INCOMPRESSIBLE_TYPES = frozenset(
    {
        b"application/gzip",
        b"application/java-archive",
        b"application/pdf",
        b"application/vnd.rar",
        b"application/x-7z-compressed",
        b"application/x-bzip2",
        b"application/x-gzip",
        b"application/x-xz",
        b"application/zip",
        b"application/zstd",
    }
)
_BUT = frozenset({b"image/svg+xml", b"image/bmp"})


def _hopeless(headers: RawHeaders) -> bool:
    """Whether the fields say that the body is compressed already."""
    for name, value in headers:
        if name == b"content-encoding":
            return True
        if name == b"content-type":
            kind = value.partition(b";")[0].strip().lower()
            if kind in _INCOMPRESSIBLE_TYPES or (kind.startswith(_INCOMPRESSIBLE) and kind not in _BUT):
                return True
    return False


def squeezed(headers: RawHeaders, body: bytes, compress_from: int) -> tuple[int, bytes]:
    """The coding and the coded bytes of a body; as it is unless at least a tenth is saved."""
    size = len(body)
    if size < compress_from or _hopeless(headers):
        return _AS_IS, body
    if size > 4 * _SAMPLE:
        sample = zlib.compress(memoryview(body)[:_SAMPLE], _LEVEL, _RAW)
        if len(sample) > _WORTH * _SAMPLE:
            return _AS_IS, body
    deflated = zlib.compress(body, _LEVEL, _RAW)
    return (_DEFLATED, deflated) if len(deflated) <= _WORTH * size else (_AS_IS, body)


def expanded(coded: memoryview, coding: int, size: int) -> bytes | None:
    """The body of `size` bytes; None for a coding that is not known. Raises `ValueError` or `zlib.error`.

    Never takes more memory than `size`, whatever the coded bytes would expand to.
    """
    if coding == _AS_IS:
        body = bytes(coded)
    elif coding == _DEFLATED:
        inflating = zlib.decompressobj(_RAW)
        # One byte more than it may be: the end is only seen by whoever reads past it.
        body = inflating.decompress(coded, size + 1)
        if not inflating.eof or inflating.unused_data:
            raise ValueError("a body that does not end where it should")
    else:
        return None
    if len(body) != size:
        raise ValueError("a body of another size")
    return body
