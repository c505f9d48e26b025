"""The response fields that every answer of the inspector carries."""

from __future__ import annotations

from starlette.responses import Response

__all__ = ["guarded_fields", "secured"]

_POLICY = (
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self'",
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
    # No text becomes markup or a script, whatever the script does.
    "require-trusted-types-for 'script'",
    "trusted-types 'none'",
)
_FIELDS = {
    "content-security-policy": "; ".join(_POLICY),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cache-control": "no-store, no-transform",
    # Not stored even by a rule of `HeaderOptions` that overrides `no-store`.
    "vary": "*",
}


def guarded_fields() -> list[tuple[bytes, bytes]]:
    """The fields, as ASGI sends them."""
    return [(name.encode(), value.encode()) for name, value in _FIELDS.items()]


def secured(response: Response) -> Response:
    """A response with the fields, in place of its own of these names."""
    for name, value in _FIELDS.items():
        response.headers[name] = value
    return response
