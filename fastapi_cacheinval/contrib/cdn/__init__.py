"""Purges go out to a CDN, after every replica has applied them."""

from __future__ import annotations

from fastapi_cacheinval.contrib.cdn.cloudflare import Cloudflare
from fastapi_cacheinval.contrib.cdn.fastly import Fastly
from fastapi_cacheinval.contrib.cdn.headers import CDNHeaders, cloudflare_headers, fastly_headers, varnish_headers
from fastapi_cacheinval.contrib.cdn.keys import batches, bounded_key, path_key, purge_of
from fastapi_cacheinval.contrib.cdn.purger import CDNPurger
from fastapi_cacheinval.contrib.cdn.requests import (
    CDN,
    Answer,
    Done,
    Purge,
    PurgeRequest,
    Rate,
    Refused,
    Retry,
    Verdict,
)
from fastapi_cacheinval.contrib.cdn.varnish import Varnish
from fastapi_cacheinval.contrib.cdn.webhook import Webhook

__all__ = [
    "CDN",
    "Answer",
    "CDNHeaders",
    "CDNPurger",
    "Cloudflare",
    "Done",
    "Fastly",
    "Purge",
    "PurgeRequest",
    "Rate",
    "Refused",
    "Retry",
    "Varnish",
    "Verdict",
    "Webhook",
    "batches",
    "bounded_key",
    "cloudflare_headers",
    "fastly_headers",
    "path_key",
    "purge_of",
    "varnish_headers",
]
