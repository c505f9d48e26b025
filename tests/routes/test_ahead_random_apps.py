"""Covers that run before the app has the request: random apps, with that and without it, answer and call the same.

More of them, other ones at each run:

    AHEAD_EXAMPLES=5000 python -m pytest --timeout=0 tests/routes/test_ahead_random_apps.py
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import Counter
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

import pytest

from fastapi_cacheinval import CacheMiddleware, ConfigurationError, HTTPCache
from fastapi_cacheinval.framework.ahead import ReadAhead
from fastapi_cacheinval.framework.route_hits import RouteHits
from fastapi_cacheinval.routes.shortcuts import Shortcuts
from fastapi_cacheinval.testing import FakeClock
from tests.helpers import trees
from tests.helpers.http import ask, until
from tests.helpers.trees import Spec, build
from tests.routes.test_random_apps import Step, for_seeds, random_case

APPS = int(os.environ.get("AHEAD_EXAMPLES", "250"))
LONG = "AHEAD_EXAMPLES" in os.environ


def first_of_all(rng: Random, spec: Spec) -> Spec:
    """The spec with its policy before every other dependency, most often with covers that are handed no request."""
    kept = {"request", "connection"} if rng.random() < 0.1 else set()
    styles = {"generator": "async", "async-generator": "def"} if rng.random() < 0.9 else {}

    def plainer(node: trees.Node) -> trees.Node:
        reads = tuple(name for name in node.reads if name in kept or name not in ("request", "connection"))
        edges = tuple(replace(edge, reused=True) for edge in node.children)
        return replace(node, reads=reads, children=edges, style=styles.get(node.style, node.style), writes=None)

    spec = replace(spec, nodes=tuple(map(plainer, spec.nodes)), policy_first=True, layers=())
    if rng.random() < 0.2:
        return replace(spec, policy_at="handler", lists={}, inert=False)
    return replace(spec, policy_at="app", inert=rng.random() < 0.05)


@dataclass
class Told:
    """What one run of a story has come to."""

    answers: list[Any] = field(default_factory=list)
    calls: list[Any] = field(default_factory=list)
    statistics: Any = None


async def told(spec: Spec, story: tuple[Step, ...], calls: list[Any]) -> Told | None:
    """The answers to a story, the calls of its nodes in order, and what was counted; None where the app is refused."""
    built = build(spec, spec.shared)
    cache = HTTPCache(clock=FakeClock(), secret="s" * 32)
    built.app.add_middleware(CacheMiddleware, cache=cache)
    found = Told(calls=calls)
    async with cache:
        for step in story:
            cache.clock.tick(step.seconds)  # type: ignore[attr-defined]
            if step.overrides is not None:
                made = built.calls
                built.provider.dependency_overrides = {made[key]: made[to] for key, to in step.overrides}
            for each in step.asks:
                answer = await ask(built.app, each.target, method=each.method, headers=each.headers)
                if answer.status_code == 500 and not found.answers:
                    return None
                found.answers.append((each, answer.status_code, answer.raw, answer.body))
                # A refresh calls them as well.
                await until(lambda: not cache.statistics().refreshing, "the refreshes")
                calls.append(each)
        found.statistics = cache.statistics()
    return found


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Each call of a node, with what it was handed."""
    heard: list[Any] = []
    check = trees._check

    def heard_too(node: trees.Node, handed: Any, text: str) -> None:
        heard.append((node, text))
        check(node, handed, text)

    monkeypatch.setattr(trees, "_check", heard_too)
    return heard


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often requests were answered ahead of the app, and how often they went on from there."""
    counted: Counter[str] = Counter()
    answer, run = RouteHits.answer, ReadAhead.run

    async def counted_answer(self: RouteHits, *given: Any) -> bool:
        answered = await answer(self, *given)
        counted["hit"] += answered
        return answered

    async def counted_run(self: ReadAhead, *given: Any) -> None:
        counted["went on"] += 1
        counted["refused"] += self._solved.error is not None
        counted["invalid"] += self._solved.error is None and self._solved.covers is None
        await run(self, *given)

    monkeypatch.setattr(RouteHits, "answer", counted_answer)
    monkeypatch.setattr(ReadAhead, "run", counted_run)
    return counted


@pytest.mark.timeout(0 if LONG else 240)
def test_random_apps_answer_and_call_the_same(
    monkeypatch: pytest.MonkeyPatch, calls: list[Any], taken: Counter[str]
) -> None:
    """Every byte of every answer, every call of a dependency in its order, and every count are those of the ordinary way."""
    learn = Shortcuts.learn

    async def both(spec: Spec, story: tuple[Step, ...]) -> None:
        calls.clear()
        these = await told(spec, story, calls)
        mine = [*calls]
        monkeypatch.setattr(Shortcuts, "learn", lambda *_, **_more: None)
        calls.clear()
        those = await told(spec, story, calls)
        monkeypatch.setattr(Shortcuts, "learn", learn)
        if these is None or those is None:
            assert these is those
            return
        assert these.answers == those.answers
        assert mine == calls
        assert these.statistics == those.statistics

    def run(seed: int) -> None:
        spec, story = random_case(seed, ["any", "any", "admin"], [""], 0)
        spec = first_of_all(Random(seed), spec)
        # A policy that is no policy says so where it is written.
        with contextlib.suppress(ConfigurationError):
            asyncio.run(both(spec, (*story, *story)))

    for_seeds(APPS, run, other=LONG)
    assert taken["hit"] > APPS // 4
    assert taken["went on"] > APPS // 4
    assert taken["refused"] > APPS // 10
    assert taken["invalid"] > APPS // 50
