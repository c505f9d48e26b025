"""The searches of a test run: what they are told to look for, and what they do around each request."""

from __future__ import annotations

import random
import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TypeAlias

from starlette.types import Message, Scope, Send

from fastapi_cacheinval.cache import internals_of
from fastapi_cacheinval.framework.asking_again import Heard
from fastapi_cacheinval.framework.exchange import can_be_read_again
from fastapi_cacheinval.middleware import CacheMiddleware
from fastapi_cacheinval.routes.plan import SAFE_METHODS
from fastapi_cacheinval.testing.assertions import made_by_the_app
from fastapi_cacheinval.testing.searches.asking import Asking
from fastapi_cacheinval.testing.searches.callers import Asked, Callers
from fastapi_cacheinval.testing.searches.findings import Costs, Finding
from fastapi_cacheinval.testing.searches.leaks import leaks, outdated
from fastapi_cacheinval.testing.searches.rows import Notes, Pages, missing_tags, noting

__all__ = ["Search", "Wanted"]

Call: TypeAlias = Callable[[Send], Awaitable[None]]
"""A request that is let through, as far as where its answer goes."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to look for. `never_stale` asks each hit again as its own caller, stale ones too."""

    leaks: bool = False
    missing_tags: bool = False
    unpurged: bool = False
    never_stale: bool = False

    def __bool__(self) -> bool:
        return self.leaks or self.missing_tags or self.unpurged or self.never_stale


class Search:
    """Looks at the requests of one test at a time; `share` is that of requests that are looked at, from 0 to 1."""

    def __init__(self, share: float = 1.0) -> None:
        self.share = share
        self.costs = Costs()
        self.wanted = Wanted()
        self.findings: list[Finding] = []
        self._callers = Callers()
        self._pages = Pages()
        self._random = random.Random()  # noqa: S311 - it draws a sample
        # Unsafe requests that have come, and those under way.
        self._mutations = self._under_way = 0
        self._found: set[tuple[object, ...]] = set()

    def begin(self, test: str, wanted: Wanted) -> None:
        """A test begins: the same requests of it are drawn in each run."""
        self.wanted, self.findings, self._found = wanted, [], set()
        self._pages = Pages()
        self._callers.next_test()
        self._random.seed(test)

    def end(self) -> list[Finding]:
        """The test is over; what was found in it."""
        found, self.findings, self.wanted = self.findings, [], Wanted()
        return found

    def also(self, **more: bool) -> None:
        """Look for more in the rest of this test."""
        self.wanted = replace(self.wanted, **more)

    async def around(self, call: Call, middleware: CacheMiddleware, scope: Scope, send: Send, *, at: object) -> None:
        """Let a request through, and look at what came of it before its client goes on.

        `at` is the middleware as the app has it, where `middleware` stands in for that.
        """
        if scope["method"] == "GET":
            await self._get(call, Asked.of(middleware, at, scope), send)
        elif scope["method"] in SAFE_METHODS:
            await call(send)
        else:
            await self._mutate(call, middleware, scope, send)

    @contextmanager
    def _waited_for(self) -> Generator[None]:
        """Count how long a test waits for the block."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.costs.seconds += time.perf_counter() - began

    def _quiet(self, middleware: CacheMiddleware) -> Callable[[], bool]:
        """Gives whether no mutation has come, and no purge was obeyed, since this was called."""
        replica = internals_of(middleware.cache).engine.replica
        before = self._mutations, replica.changes

        def quiet() -> bool:
            same = (self._mutations, replica.changes) == before
            self.costs.overtaken += not same
            return same

        return quiet

    # -- reads ----------------------------------------------------------------------------------

    async def _get(self, call: Call, asked: Asked, send: Send) -> None:
        answer = Heard(asked.middleware.cache.settings.max_body_bytes)

        async def heard(message: Message) -> None:
            message = can_be_read_again(message)
            await answer(message)
            await send(message)

        with noting() as notes:
            await call(heard)
        with self._waited_for():
            await self._look_at(asked, notes, answer)

    async def _look_at(self, asked: Asked, notes: Notes, answer: Heard) -> None:
        wanted = self.wanted
        drawn = self.share >= 1 or self._random.random() < self.share
        asking = Asking.of(asked, self.costs) if wanted and (drawn or wanted.never_stale) else None
        if asking is None or self._under_way:
            return
        self.costs.checked += 1
        quiet, own_hit = self._quiet(asked.middleware), not made_by_the_app(answer.headers)
        if wanted.never_stale and own_hit:
            self._note(await outdated(asking, answer, quiet=quiet))
        if wanted.leaks and drawn:
            # Those that asked before; whoever asks now is known to those that ask at the same time.
            others = [*self._callers.others(asked.caller)]
            self._callers.meet(asked.caller)
            for finding in await leaks(asking, others, own_hit=own_hit, quiet=quiet):
                self._note(finding)
        if (wanted.missing_tags or wanted.unpurged) and drawn:
            stored = await asking.stored(asked.caller)
            if stored is not None and quiet():
                if wanted.missing_tags:
                    self._note(missing_tags(asking, stored, notes.read, self.costs))
                self._pages.keep(asking, stored, notes.read)

    # -- writes ---------------------------------------------------------------------------------

    async def _mutate(self, call: Call, middleware: CacheMiddleware, scope: Scope, send: Send) -> None:
        self._mutations += 1
        self._under_way += 1
        method, path, before = scope["method"], scope["path"], dict(scope)
        try:
            with noting() as notes:
                await call(send)
        finally:
            self._under_way -= 1
        if not self.wanted.unpurged or not notes.changed or self._under_way:
            return
        with self._waited_for():
            table = middleware._app_context.table  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - what it knows
            plan = table.match(method, path, before)
            label = f"{method} {path if plan is None else plan.path}"
            self.costs.checked += 1
            for finding in await self._pages.unpurged(label, notes.changed, quiet=self._quiet(middleware)):
                self._note(finding)

    def _note(self, finding: Finding | None) -> None:
        if finding is not None and (finding.kind, *finding.where) not in self._found:
            self._found.add((finding.kind, *finding.where))
            self.findings.append(finding)
            self.costs.found += 1
