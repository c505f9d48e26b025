"""A request that the front lookup has not answered, as the guards see it."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.types import Receive, Scope, Send

from fastapi_cacheinval.engine.runtime import Runtime
from fastapi_cacheinval.framework.cdn_fields import CDNFields
from fastapi_cacheinval.framework.mutation import Mutation

__all__ = ["Incoming"]


@dataclass(frozen=True, slots=True)
class Incoming:
    """A request on its way past the guards.

    `closed` says why it may neither be answered from the cache nor fill it: the app answers it. `cdn_fields` is the
    outer end of `send`, where a CDN in front is told something. `mutation` is there for an unsafe method.
    """

    scope: Scope
    receive: Receive
    send: Send
    runtime: Runtime
    cdn_fields: CDNFields | None = None
    closed: str | None = None
    mutation: Mutation | None = None
