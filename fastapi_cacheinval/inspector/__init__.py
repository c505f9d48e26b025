"""A page that shows a cache while it works: an ASGI app to mount, behind a guard."""

from __future__ import annotations

from fastapi_cacheinval.inspector.app import Inspector
from fastapi_cacheinval.inspector.guard import Guard

__all__ = ["Guard", "Inspector"]
