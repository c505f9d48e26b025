"""A small ASGI app for the processes: it answers its process id and a variable of its environment."""

from __future__ import annotations

import json
import os
from typing import Any


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answer every request alike."""
    if scope["type"] != "http":
        raise RuntimeError("this app has no lifespan")
    body = json.dumps({"pid": os.getpid(), "name": os.environ.get("NAME")}).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": body})
