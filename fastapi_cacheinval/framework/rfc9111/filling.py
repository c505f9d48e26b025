"""The rules of a fill by what the response's own headers say, freshening by 304 included (RFC 9111 sections 3, 4.3)."""

from __future__ import annotations

from starlette.types import Send

from fastapi_cacheinval.core.conditional import stands_for
from fastapi_cacheinval.core.rfc9111.asking import Asked
from fastapi_cacheinval.core.rfc9111.freshness import passed_on
from fastapi_cacheinval.core.rfc9111.response import SharedResponse, outlasts, stands_in
from fastapi_cacheinval.core.rfc9111.storing import OF_THE_REQUEST, Judged, Received
from fastapi_cacheinval.core.rfc9111.validating import Newer, confirms
from fastapi_cacheinval.core.stored import StoredResponse
from fastapi_cacheinval.framework.fill_rules import (
    Contradict,
    Cover,
    Form,
    Freshen,
    Keep,
    Made,
    Refuse,
    StartVerdict,
    outdates,
)
from fastapi_cacheinval.framework.rfc9111.answering import send_cut
from fastapi_cacheinval.framework.rfc9111.making import freshened_as, judged_as, made_as
from fastapi_cacheinval.framework.rfc9111.resource import Resource
from fastapi_cacheinval.grammar.fields import RawField, RawHeaders, end_to_end, of_the_connection

__all__ = ["HeaderRules"]

# What counts as an error: more than RFC 5861 section 4 names, as under a policy. A 507 is no newer page either.
_ERRORS = range(500, 1000)


class HeaderRules:
    """One fill's rules.

    `stale` is what is stored; `validating` is that too, where the app is sent its validators; `unconfirmed` is what a
    304 has not spoken of, so that the whole is asked for. `for_part` says that a part was asked for. `for_others` is
    False where the app tells a caller with credentials what it may tell nobody else: that says nothing of what
    strangers share.
    """

    def __init__(
        self,
        resource: Resource,
        asked: Asked,
        *,
        stale: SharedResponse | None,
        validating: SharedResponse | None,
        unconfirmed: SharedResponse | None,
        for_part: bool,
        for_others: bool,
    ) -> None:
        self._resource = resource
        self._exchange = resource.exchange
        self._engine = resource.exchange.app_context.engine
        self._asked = asked
        self._stale = stale
        self._validating = validating
        self._unconfirmed = unconfirmed
        self._for_part = for_part
        self.for_others = for_others
        self._judged: Judged | None = None
        # What has come, and why it is not kept.
        self._status = 0
        self._headers: RawHeaders = ()
        self._refusal: str | None = None

    @property
    def began(self) -> float:
        """When the forward began, on the cache's clock."""
        return self._exchange.stamp.began

    @property
    def split(self) -> bool:
        """Whether clients choose by their query which keys there are."""
        return self._resource.split

    # -- what becomes of it ---------------------------------------------------------------------

    def accept(
        self, status: int, headers: list[RawField], *, trailers: bool, stale: StoredResponse | None
    ) -> StartVerdict:
        """What becomes of a response that begins so."""
        self._status, self._headers = status, headers
        if status == 304 and self._validating is not None:
            if confirms(self._validating, headers, self._exchange.app_context.cache.clock.wall()):
                return self._freshen(self._validating, headers)
            return Contradict()
        if status == 304 and self._unconfirmed is not None and self._may_stay(self._unconfirmed):
            # To a request without any condition: an answer that no client can use.
            return Cover(self._unconfirmed)
        if status in _ERRORS and stale is not None:
            return Cover(stale)
        if status in _ERRORS and self._exchange.refresh is not None and self._stays():
            # Nobody is there to be answered, and what is stored stays.
            return Refuse("status", failed=True, outdated=False)
        self._judged = judged_as(self._resource, self._received(status, headers))
        reason = self._refusal = "trailers" if trailers else self._judged.refusal
        if reason is None:
            return Keep()
        says_so = outdates(status) or (self._for_part and status == 416)
        outdated = says_so and reason not in OF_THE_REQUEST and status != 304
        # After a failure one more may lead.
        return Refuse(reason, failed=status >= 500, outdated=outdated)

    def _freshen(self, old: SharedResponse, update: list[RawField]) -> Freshen:
        cookies: list[RawField] = []
        if not self._resource.options.set_cookie:
            # For this client, and none of what is stored.
            cookies = [line for line in update if line[0] == b"set-cookie"]
            update = [line for line in update if line[0] != b"set-cookie"]
        made, refused = freshened_as(self._resource, self._asked, old, update, ranged=self._for_part)
        self._refusal = refused
        own = [*cookies, *of_the_connection(update, made.stored.headers)]
        age = [line for line in update if line[0] == b"age"]
        return Freshen(made, refused, refused not in OF_THE_REQUEST, own, age)

    def make(self, status: int, headers: list[RawField], body: bytes) -> Made | Refuse:
        """The complete response as it would be kept; or why it is not."""
        received = self._received(status, headers)
        judged = self._judged or judged_as(self._resource, received)
        made = made_as(self._resource, received, judged, body)
        if isinstance(made, Refuse):
            self._refusal = made.detail
        return made

    def _received(self, status: int, headers: list[RawField]) -> Received:
        added = self._exchange.request_tags().snapshot()
        return self._resource.received(self._asked, status, headers, added, ranged=self._for_part)

    def kept(self, stored: StoredResponse) -> None:
        """The response has been stored."""
        self._resource.kept(self._asked, stored)

    def outdate(self) -> None:
        """The response is not kept, and speaks against what is stored: let go of that."""
        self._resource.let_go(Newer(self._asked, self._status, self._headers, self._refusal))

    def _may_stay(self, stored: SharedResponse) -> bool:
        allowed = not stored.must_revalidate and not stored.only_fresh
        return allowed and self._engine.stale_from(stored, self._engine.now()) is not None

    def _stays(self) -> bool:
        stale, now = self._stale, self._engine.now()
        return stale is not None and outlasts(stale, self._engine.stale_from(stale, now), now)

    def stands_in(self, stored: StoredResponse) -> bool:
        """Whether a stale response may stand in for a failure, now; a refresh has nobody to stand in for."""
        if self._exchange.refresh is not None:
            return False
        now = self._engine.now()
        return isinstance(stored, SharedResponse) and stands_in(
            self._asked, stored, self._engine.stale_from(stored, now), now
        )

    # -- what the client sees -------------------------------------------------------------------

    def fields(self, form: Form, headers: list[RawField]) -> list[RawField]:
        """The fields that the client sees of a response that is not sent from what is stored."""
        return passed_on(headers, self._resource.hidden)

    def first_fields(self, headers: list[RawField], stored: StoredResponse) -> list[RawField]:
        """The fields of the answer that a response is stored from; cookies and an upstream's Age are not stored."""
        if isinstance(stored, SharedResponse) and stored.part is not None:
            return passed_on(headers, self._resource.hidden)
        fields = passed_on(end_to_end(headers), self._resource.hidden)
        return [*fields, *of_the_connection(headers, fields)]

    def has_it(self, status: int, headers: list[RawField]) -> bool:
        """Whether the client's condition, which the app has not seen, asks for a 304 in the response's place."""
        wall = self._exchange.app_context.cache.clock.wall()
        return stands_for(self._asked.headers, status, headers, wall)

    async def reply(self, send: Send, stored: StoredResponse, fields: list[RawField]) -> None:
        """Send a complete response with these fields, or the 304 or the ranges that stand for it."""
        if not isinstance(stored, SharedResponse) or stored.part is not None:
            await send({"type": "http.response.start", "status": stored.status, "headers": fields})
            await send({"type": "http.response.body", "body": stored.body})
            return
        await send_cut(send, self._exchange.app_context, stored, self._asked, fields)
