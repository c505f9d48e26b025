"""A Varnish in front of the shop, where VARNISH_URL names one: it is purged, and told what it may keep."""

from __future__ import annotations

import os

from fastapi_cacheinval import Downstream, HTTPCache

__all__ = ["varnish_in_front"]


def varnish_in_front(cache: HTTPCache) -> Downstream | None:
    """Have the Varnish purged of what the cache purges; gives what tells it for how long to keep what it is handed."""
    url = os.environ.get("VARNISH_URL")
    if not url:
        return None
    # Not without need: its extra may not be installed.
    from fastapi_cacheinval.contrib.cdn import CDNPurger, Varnish, varnish_headers  # noqa: PLC0415

    varnish = Varnish(url)
    cache.attach(CDNPurger(cache, varnish))
    return varnish_headers(varnish)
