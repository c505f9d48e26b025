"""What an unsafe request purges: what its route declares, what is added on the way, and the paths that it names."""

from __future__ import annotations

import contextlib
import re
from urllib.parse import quote, unquote, urljoin, urlsplit

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastapi_cacheinval.core.extent import Extent, Handler, PathReach, extent_of, path_reach, paths_named
from fastapi_cacheinval.core.tag_limits import surrogate_tags
from fastapi_cacheinval.core.tags import authority, path_tag
from fastapi_cacheinval.dependencies import Invalidates
from fastapi_cacheinval.engine.request_tags import Changes
from fastapi_cacheinval.framework.exchange import Exchange, can_be_read_again
from fastapi_cacheinval.framework.incoming import Incoming
from fastapi_cacheinval.grammar.fields import combined, first, lower_names
from fastapi_cacheinval.grammar.surrogate_key import readings
from fastapi_cacheinval.routes.arrival import Arrival
from fastapi_cacheinval.routes.bindings import InvalidParameter, rendered
from fastapi_cacheinval.routes.plan import SAFE_METHODS, RoutePlan

__all__ = ["Purge", "Purging"]

# Tags in normal form, and whether they are purged softly.
Purge = tuple[tuple[str, ...], bool]

_ESCAPED_DOT = re.compile("%2e", re.IGNORECASE)


class Purging(Exchange):
    """The half of an unsafe request that knows what is to be purged, and what of it has been."""

    # Whether RFC 9111 decides, and not the policies of routes.
    by_headers = False

    def __init__(self, incoming: Incoming, before: Exchange | None = None) -> None:
        """Take a request; `before` is the exchange of a safe one, of which a layer has made an unsafe one."""
        super().__init__(incoming, None if before is None else before.entered)
        self._declared_hard: dict[str, None] = {}
        self._declared_soft: dict[str, None] = {}
        # Whether the answer waits for every replica.
        self._waits_for_all = False
        # Which `invalidates()` have had their turn.
        self._rendered: set[int] = set()
        self._named_paths: dict[str, None] = {}
        self._tags_of_paths: dict[str, list[str]] = {}
        # Before any thread of the request can: two that made one each would lose the tags of one. Dependencies may have
        # added some before it came to light that the request is unsafe.
        self._request_tags = self._added = (self if before is None else before).request_tags()
        self._changes = Changes(self.app_context.face)
        # The start of an answer whose fields have been noted, and these in lower-case names.
        self._noted: tuple[Message, list[tuple[bytes, bytes]]] | None = None
        self._purged: set[str] = set()
        # The count of the request's tags at the last purge.
        self._purged_to = 0
        self._arrival = Arrival()
        self._sees_all = self.app_context.table.sees_all()
        # The scope at the route, once the request has come to one: layers inside may have made another of it.
        self._routed: Scope | None = None
        # The route that was asked for last, and its plan.
        self._planned: tuple[object, RoutePlan | None] = None, None
        # Of the answer that the app has begun.
        self._status: int | None = None

    @property
    def changes(self) -> Changes:
        return self._changes

    async def enter(self, handle: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """The request has come to a route, by the method and path that the layers on the way have left."""
        self._routed = scope
        self._tags_of_paths.clear()
        self.app_context.note_root(scope, inside=True)
        self._named_paths[scope["path"]] = None

        async def said(message: Message) -> None:
            message = can_be_read_again(message)
            # What the route names counts, whatever a layer makes of its answer.
            if message["type"] == "http.response.start" and message["status"] < 400:
                self._headers_of(message)
            await send(message)

        await self._arrival.follow(handle, scope, receive, said)

    def _plan(self) -> RoutePlan | None:
        """The plan of the FastAPI route that the request came to."""
        scope = self._routed or self.scope
        route = scope.get("route")
        if route is None:
            return None
        if route is not self._planned[0]:
            self._planned = route, self.app_context.table.plan_for(scope, self.arrived)
        return self._planned[1]

    def _named(self) -> str:
        """The mutation's route by its label, empty where that is not known."""
        plan = self._plan()
        return "" if plan is None else f"{self.scope['method']} {plan.path}"

    def _handler(self) -> Handler:
        handler, app = self._arrival.handler, self.scope.get("app")
        known = app is self.arrived.get("app") or self.app_context.table.has(app)
        if not known or not self._sees_all:
            return max(handler, Handler.GIVEN)
        found = self.scope.get("endpoint") is not self.arrived.get("endpoint")
        if found and handler is Handler.UNREACHED and not self.app_context.table.survey.layered:
            # A router has found a route, which would note the arrival of a method that it has.
            return Handler.STOPPED
        return handler

    def _extent(self) -> Extent:
        """How much is purged as things stand; before there is a status, and after an exception, as far as is known."""
        method = self.scope["method"] if self._routed is None else self._routed["method"]
        plan = self._plan()
        if plan is not None and plan.only_reads:
            return Extent.FACTS
        # A layer may have made a read of it.
        handler = Handler.STOPPED if method in SAFE_METHODS else self._handler()
        return extent_of(self._status, handler, by_headers=self.by_headers)

    def declare(self, request: Request, invalidates: Invalidates) -> None:
        """Render what an `invalidates()` names, for the validated parameters."""
        if not self._arrival.follows():
            # It came another way than through the route's hook, or in a context of its own.
            self._arrival.given()
        if self._routed is None:
            self._routed = request.scope
            self._tags_of_paths.clear()
        self._declare(request, invalidates)

    def _declare(self, request: Request, invalidates: Invalidates) -> None:
        self._rendered.add(id(invalidates))
        self._waits_for_all = self._waits_for_all or invalidates.waits
        here = request.scope is self._routed
        plan = self._plan() if here else self.app_context.table.plan_for(request.scope, self.arrived)
        self._named_paths[request.scope["path"]] = None
        if plan is not None and not any(each is invalidates for each in plan.invalidations):
            # An inner invalidates_nothing() has the last word.
            return
        for template in invalidates.templates:
            try:
                tag = rendered(template, {} if plan is None else plan.bindings, request)
            except InvalidParameter:
                # The framework answers 422, and nothing happens that would have to be purged.
                continue
            if tag is None:
                self.app_context.counters.dropped_tag()
            else:
                (self._declared_soft if invalidates.soft else self._declared_hard)[tag] = None

    def _wanted(self) -> list[Purge]:
        """All that is to be purged and has not been since it was named, hard before soft.

        What no `invalidates()` names is purged softly only where all that is declared is soft.
        """
        again = self._added.since(self._purged_to)
        unnamed = dict.fromkeys((*self._added.snapshot(), *self._changes.snapshot(), *self._path_tags()))
        hard, soft = dict(self._declared_hard), dict(self._declared_soft)
        (soft if soft and not hard else hard).update(unnamed)
        purges: list[Purge] = []
        for tags, softly in ((hard, False), ([tag for tag in soft if tag not in hard], True)):
            due = tuple(tag for tag in tags if tag not in self._purged or tag in again)
            if due:
                purges.append((due, softly))
        return purges

    def _due(self, extent: Extent) -> list[Purge]:
        """What is to be purged to this extent and has not been."""
        if extent is Extent.ALL:
            return self._wanted()
        targets = self._target_tags() if extent is Extent.TARGET else []
        due = tuple(tag for tag in (*targets, *self._changes.snapshot()) if tag not in self._purged)
        return [(due, False)] if due else []

    def _taken(self, extent: Extent) -> list[Purge]:
        """What is due, noted as purged; what is committed from now on is purged by who commits it."""
        self._changes.close()
        count = self._added.count
        purges = self._due(extent)
        self._purged_to = count
        for tags, _ in purges:
            self._purged.update(tags)
        return purges

    def _fenced(self, purges: list[Purge]) -> int | None:
        """A fence of what is purged hard, if anything."""
        hard = [tag for tags, soft in purges if not soft for tag in tags]
        return self.app_context.engine.replica.fence(hard) if hard else None

    def _tell_of_ignored_tags(self) -> None:
        plan = self._plan()
        if plan is not None and plan.only_reads and self._added.count:
            self.app_context.notices.note_ignored_tags(plan)

    def _declare_all(self) -> None:
        """Declare what the route's `invalidates()` name that the request did not come as far as."""
        plan = self._plan()
        if plan is not None and plan.invalidations:
            request = Request(self._routed or self.scope)
            for invalidates in plan.invalidations:
                if id(invalidates) in self._rendered:
                    continue
                # A validator of the author's may be what failed the request.
                with contextlib.suppress(Exception):
                    self._declare(request, invalidates)

    @property
    def _reach(self) -> PathReach:
        return path_reach(self.app_context.engine.settings.path_purges, by_headers=self.by_headers)

    def _purges_paths(self) -> bool:
        plan = self._plan()
        return bool(self._reach) and (plan is None or plan.purges_paths)

    def _target_tags(self) -> list[str]:
        """The exact target path, where a cached GET is there; what RFC 9111 section 4.4 asks for."""
        return self._tags_of_cached([self.arrived["path"]]) if self._purges_paths() else []

    def _path_tags(self) -> list[str]:
        """The target paths and their parent collections, with and without the slash, where a cached GET is there."""
        tags: list[str] = []
        if not self._purges_paths():
            return tags
        # As it came, and as a layer inside may have rewritten it.
        for path in dict.fromkeys((self.arrived["path"], self.scope["path"], *self._named_paths)):
            known = self._tags_of_paths.get(path)
            if known is None:
                known = self._tags_of_paths[path] = self._tags_of_path(path)
            tags += known
        return tags

    def _tags_of_path(self, path: str) -> list[str]:
        return self._tags_of_cached(paths_named(path, self._reach))

    def _tags_of_cached(self, paths: list[str]) -> list[str]:
        cached = self.app_context.table.cached_of(paths, self.arrived, self._routed, self._plan())
        return [path_tag(self.app_context.below_root(self.arrived, spelling)) for spelling in cached]

    def purges_something(self) -> bool:
        """Whether it is known before the app is asked that a success purges."""
        plan = self._plan() or self.app_context.table.match(self.scope["method"], self.scope["path"], self.scope)
        if plan is None:
            return bool(self._path_tags())
        return bool(plan.invalidations) or (plan.purges_paths and bool(self._path_tags()))

    def _headers_of(self, start: Message) -> list[tuple[bytes, bytes]]:
        """The fields of an answer that changes something, in lower-case names, and noted."""
        if self._noted is None or self._noted[0] is not start:
            headers = lower_names(start.get("headers", ()))
            self._noted = start, headers
            self._note_headers(headers)
        return self._noted[1]

    def _note_headers(self, headers: list[tuple[bytes, bytes]]) -> None:
        """What the response names: `Surrogate-Key` tags, and same-origin `Location` and `Content-Location`."""
        self._added.take(surrogate_tags(headers))
        for name in (b"location", b"content-location"):
            value = first(headers, name)
            for text in () if value is None else readings(value.strip(b" \t")):
                self._note_path(text)
                # A dot is the same in an escape (RFC 3986 section 6.2.2.2), but an app may not take it for one.
                if (plain := _ESCAPED_DOT.sub(".", text)) != text:
                    self._note_path(plain)

    def _note_path(self, url: str) -> None:
        """A response names a path by a URL, which counts if it is of the same origin."""
        scheme = self.arrived.get("scheme", "http")
        host = (combined(self.client_headers, b"host") or b"").decode("latin-1")
        base = f"{scheme}://{host}{quote(self.arrived['path'], errors='surrogatepass')}"
        try:
            target = urlsplit(urljoin(base, url))
        except ValueError:
            return
        if authority(target.scheme, target.netloc) == authority(scheme, host):
            # An absolute URL has its dots still; the one before them has a path of two slashes be no host.
            self._named_paths[unquote(urlsplit(urljoin(base, f"/.{target.path}")).path)] = None
