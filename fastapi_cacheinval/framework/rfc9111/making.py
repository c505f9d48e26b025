"""Whether a response is stored for a resource, and as what: a received one, or one that a 304 or HEAD freshens."""

from __future__ import annotations

from dataclasses import replace

from fastapi_cacheinval.core.rfc9111.asking import Asked
from fastapi_cacheinval.core.rfc9111.building import make
from fastapi_cacheinval.core.rfc9111.ranges import part_of
from fastapi_cacheinval.core.rfc9111.response import SharedResponse
from fastapi_cacheinval.core.rfc9111.storing import Judged, Received, judge
from fastapi_cacheinval.core.rfc9111.validating import freshened
from fastapi_cacheinval.core.tag_limits import too_many_tags, without_everything
from fastapi_cacheinval.framework.fill_rules import Made, Refuse
from fastapi_cacheinval.framework.rfc9111.resource import Resource, part_key
from fastapi_cacheinval.grammar.fields import RawHeaders

__all__ = ["freshened_as", "judged_as", "keep", "made_as"]


def judged_as(resource: Resource, received: Received) -> Judged:
    """What steers a received response, and whether it is stored."""
    return judge(received, resource.options, resource.exchange.app_context.engine.settings.max_body_bytes)


def made_as(resource: Resource, received: Received, judged: Judged, body: bytes) -> Made | Refuse:
    """The response as it is kept, or a part of one; or why it is not."""
    if too_many_tags(received.added, received.headers):
        return Refuse("too-many-tags", failed=False, outdated=True)
    part = None
    if received.status == 206:
        part = part_of(received.headers, body)
        if part is None:
            return Refuse("partial", failed=False, outdated=True)
        received = replace(received, key=part_key(received.key))
    return Made(received.key, *make(received, judged, body, resource.options, part))


def freshened_as(
    resource: Resource, asked: Asked, old: SharedResponse, update: RawHeaders, *, ranged: bool = False
) -> tuple[Made, str | None]:
    """A stored response with the fields of a 304 or a HEAD, and why that is not kept, None where it is."""
    merged = freshened(old, update, resource.exchange.app_context.cache.clock.wall())
    received = resource.received(asked, old.status, merged, without_everything(old.tags), ranged=ranged)
    judged = judged_as(resource, received)
    return Made(received.key, *make(received, judged, old.body, resource.options)), judged.refusal


def keep(resource: Resource, asked: Asked, received: Received, judged: Judged, body: bytes) -> None:
    """Keep a complete response of which nobody waits to hear, if no purge has overtaken it."""
    made, engine = made_as(resource, received, judged, body), resource.exchange.app_context.engine
    if isinstance(made, Made) and engine.offer(made.key, made.stored, made.chosen, engine.now()):
        resource.kept(asked, made.stored)
