"""`mutations_when_disconnected="refuse"`: what cannot be purged is not written."""

from __future__ import annotations

from math import ceil

from starlette.types import Send

from fastapi_cacheinval.core.decide import Reason
from fastapi_cacheinval.core.outcome import Outcome, Result
from fastapi_cacheinval.framework.answering import status_fields
from fastapi_cacheinval.framework.mutation import Mutation

__all__ = ["refused"]

_BODY = b"The cache's log is out of reach, and nothing is changed that could not be invalidated."


async def refused(mutation: Mutation, send: Send) -> bool:
    """Answer 503 where the purge of a mutation could not be written; whether it was answered so."""
    engine = mutation.app_context.engine
    if engine.settings.mutations_when_disconnected != "refuse" or engine.replica.live(engine.now()):
        return False
    if not mutation.purges_something():
        return False
    outcome = Outcome(Result.BYPASS, reason=Reason.METHOD, detail="disconnected")
    mutation.described(outcome)
    fields = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", b"%d" % len(_BODY)),
        (b"retry-after", b"%d" % ceil(engine.settings.staleness_bound)),
        *status_fields(mutation.app_context, outcome),
    ]
    await send({"type": "http.response.start", "status": 503, "headers": fields})
    await send({"type": "http.response.body", "body": _BODY})
    return True
