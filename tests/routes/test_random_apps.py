"""A caller never gets another caller's response: random apps, with the cache and without it.

Every app that the audit accepts is built twice and asked the same, once with the cache on and once with
it off; what differs is a leak. Every app that it refuses fails to start with a configuration error.

The suite runs a bounded number of apps, the same each time. More, other ones at each run:

    SHARING_EXAMPLES=5000 python -m pytest --timeout=0 tests/routes/test_random_apps.py
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pprint import pformat
from random import Random
from typing import Any

import pytest

from fastapi_cacheinval import CacheMiddleware, ConfigurationError, HTTPCache
from fastapi_cacheinval.framework import route_target
from fastapi_cacheinval.routes import analysis, covers, dependency_tree, plan, verdict
from fastapi_cacheinval.routes.evidence import Evidence
from fastapi_cacheinval.testing import FakeClock
from tests.helpers.http import PATIENCE, Answer, ask, until
from tests.helpers.trees import (
    CALLERS,
    LAYERS,
    LEVELS,
    OF_ANYBODY,
    OF_CALLERS,
    QUERIES,
    SCHEMES,
    STYLES,
    TEXTUAL,
    Ask,
    Built,
    Edge,
    Node,
    Spec,
    asks_who,
    build,
    has_scopes,
)

APPS = int(os.environ.get("SHARING_EXAMPLES", "200"))
LONG = "SHARING_EXAMPLES" in os.environ
# It computes and waits for nothing: on a machine with other work it takes its time.
pytestmark = pytest.mark.timeout(0 if LONG else 240)
# How many apps a broken analysis may pass before it is caught.
TO_CATCH = 600

PREFIXES = {"app": ("",), "include": ("/r",), "twice": ("/r", "/s"), "nested": ("/o/r",), "mounted": ("/m/r",)}
SCOPES = ((), ("read",), ("admin",), ("admin", "read"))

# Some apps never ask who it is, some only where an override puts it; some have a guard with scopes, and
# some ask without any use of the answer, so that shared=True is true of them.
KINDS = (*["any"] * 5, "admin", "admin", "aside", "idle", "nowhere")
MISTAKES = (*[""] * 6, "swap", "drop", "scopes", "other", "below")

# What the cache adds to an answer, or may.
OURS = {"age", "cache-status", "etag", "cache-control", "surrogate-key", "vary", "content-length"}


class Leak(AssertionError):
    """An answer with the cache is not the one without it."""


# -- random apps --------------------------------------------------------------------------------


def edges(rng: Random, made: Sequence[Node], least: int = 0, most: int = 3) -> tuple[Edge, ...]:
    found = []
    for _ in range(rng.randint(least, most) if made else 0):
        # The newest nodes are the highest: prefer them, so that trees are deep.
        number = max(rng.randrange(len(made)), rng.randrange(len(made)))
        seldom = [()] * 9 + [("read",), ("admin",)]
        scopes = rng.choice(SCOPES if "scopes" in made[number].reads else seldom)
        found.append(Edge(number, scopes, rng.random() < 0.96))
    return tuple(found)


def node(rng: Random, below: Sequence[Node], *, asking: bool) -> Node:
    """A node; it asks who the caller is only where `asking`, but what is below it may."""
    if asking and rng.random() < 0.25:
        return Node(scheme=rng.choice(sorted(SCHEMES)))
    readable = (*OF_ANYBODY, *OF_CALLERS) if asking else OF_ANYBODY
    reads = set(rng.choices(readable, k=rng.randint(0, 2)))
    refuses = rng.choice([None, None, "bob", "nobody", "admin", "admin"]) if asking else None
    if refuses == "admin":
        reads |= {"scopes", "header"}
    if rng.random() < 0.1:
        reads = (reads - {"query", "queries", "number"}) | {"query-model"}
    if "header-model" in reads:
        reads -= {"header", "needed-header", "lang"}
    if "needed-header" in reads:
        reads -= {"header"}
    return Node(
        reads=tuple(sorted(reads)),
        children=edges(rng, below),
        style=rng.choice(STYLES),
        gives=rng.choice(["all", "all", "bit", "nothing"]),
        refuses=refuses,
        writes=rng.choice(["header", "status"]) if rng.random() < 0.06 else None,
    )


def frontier(spec: Spec, used: tuple[Edge, ...], above: tuple[str, ...], *, deep: bool) -> Iterator[Edge]:
    """Uses of nodes that between them pass all that asks who it is, with the scopes that reach them."""
    for edge in used:
        if not asks_who(spec, edge.node):
            continue
        found = spec.nodes[edge.node]
        scopes = tuple(sorted({*above, *edge.scopes}))
        own = found.scheme is not None or any(name in OF_CALLERS for name in found.reads)
        if deep and not own:
            yield from frontier(spec, found.children, scopes, deep=deep)
        else:
            yield Edge(edge.node, scopes)


def covered(rng: Random, spec: Spec, mistake: str) -> Spec:
    """The spec with covers that are right, but for one mistake."""
    listed = tuple(edge for level in LEVELS for edge in spec.lists.get(level, ()))
    deep = rng.random() < 0.5
    partition = list(frontier(spec, spec.handler.children, (), deep=deep))
    unbound = list(frontier(spec, listed, (), deep=deep))
    guards = unbound if rng.random() < 0.7 else []
    partition += [] if guards else unbound
    handler, made = spec.handler, [*spec.nodes]
    if mistake == "swap":
        partition, guards = guards, partition
    elif mistake == "drop" and (partition or guards):
        chosen = partition or guards
        chosen.pop(rng.randrange(len(chosen)))
    elif mistake == "scopes":
        guards, partition = (
            [replace(e, scopes=rng.choice(SCOPES)) if "scopes" in made[e.node].reads else e for e in some]
            for some in (guards, partition)
        )
    elif mistake == "other":
        partition = list(edges(rng, spec.nodes, 1, 2))
    elif mistake == "below":
        # The handler is handed what the partition is made of, too, and the partition tells less.
        for upper in sorted({each.node for each in partition}):
            under = [replace(each, scopes=(), reused=True) for each in made[upper].children]
            handler = replace(handler, children=(*handler.children, *under))
            made[upper] = replace(made[upper], gives=rng.choice(["bit", "nothing"]))
    # A partition's value is text.
    partition = [each for each in partition if spec.nodes[each.node].scheme in (None, *TEXTUAL)]
    return replace(spec, nodes=tuple(made), handler=handler, partition=tuple(partition), guards=tuple(guards))


def nodes(rng: Random, size: int, kind: str) -> tuple[Node, ...]:
    made: list[Node] = []
    # Each stands on those before it.
    made.extend(node(rng, made, asking=kind in ("any", "admin", "idle")) for _ in range(size))
    if kind == "aside":
        shifted = [replace(each, children=tuple(replace(e, node=e.node + 1) for e in each.children)) for each in made]
        made = [Node(reads=("header",)), *shifted]
    elif kind == "admin":
        made.append(Node(("header", "scopes"), edges(rng, made, 0, 1), refuses="admin"))
    elif kind == "idle":
        for index, each in enumerate(made):
            reads = tuple(name for name in each.reads if name != "needed-header")
            plain = replace(each, reads=reads, gives="nothing", refuses=None, writes=None)
            made[index] = replace(each, scheme="oauth2-lax") if each.scheme else plain
    return tuple(made)


def random_spec(rng: Random, kind: str, mistake: str) -> Spec:
    made = nodes(rng, rng.randint(0, 7), kind)
    lists = {level: edges(rng, made, 1, 2) for level in LEVELS if rng.random() < 0.3}
    children = edges(rng, made, rng.choice([0, 1, 1]))
    if kind == "admin":
        lists["route"] = (Edge(len(made) - 1, rng.choice(SCOPES[2:])),)
    elif kind == "aside":
        lists = {level: tuple(edge for edge in used if edge.node) for level, used in lists.items()}
        children = tuple(edge for edge in children if edge.node)
    reads = {rng.choice([*OF_ANYBODY[:4], "lang", "header"]) for _ in range(rng.randint(0, 2))}
    spec = Spec(
        nodes=made,
        lists=lists,
        handler=Node(tuple(sorted(reads)), children, style=rng.choice(STYLES[:3])),
        shape=rng.choice(sorted(PREFIXES)),
        policy_at=rng.choice([*LEVELS, "handler"]),
        policy_first=rng.random() < 0.5,
        partition=(),
        guards=(),
        shared=True if kind == "idle" or rng.random() < 0.3 else None,
        inert=rng.random() < 0.2,
        statuses=rng.choice([frozenset({200}), frozenset({200, 203, 403, 422})]),
    )
    return spec if kind == "idle" or rng.random() < 0.15 else covered(rng, spec, mistake)


@dataclass(frozen=True)
class Step:
    """Requests at the same time, after some seconds and, where there are any, a change of the overrides."""

    asks: tuple[Ask, ...]
    seconds: int = 0
    overrides: tuple[tuple[int, int], ...] | None = None


def random_story(rng: Random, spec: Spec) -> tuple[Step, ...]:
    # Few targets, so that there are hits.
    queries = rng.choices(QUERIES, k=rng.randint(1, 3))
    langs: Any = rng.choice([[None], [None, "de"]])

    def one() -> Ask:
        prefix = rng.choice(PREFIXES[spec.shape])
        return Ask(
            caller=rng.choice(sorted(CALLERS)),
            path=f"{prefix}/item/{rng.choice('1112')}",
            query=rng.choice(queries),
            lang=rng.choice(langs),
            method="HEAD" if rng.random() < 0.1 else "GET",
        )

    steps = [Step(tuple(one() for _ in range(rng.randint(1, 3))), _later(rng)) for _ in range(rng.randint(0, 4))]
    # All callers one after the other, alice among them: what is kept of one meets the others.
    target = one()
    for caller in rng.sample(sorted(CALLERS.keys() - {"alice"}), 3):
        steps += [
            Step((replace(target, caller=each, method="GET"),), _later(rng))
            for each in rng.sample(["alice", caller], 2)
        ]
    return tuple(_overriding(rng, spec, steps))


def _later(rng: Random) -> int:
    return 61 if rng.random() < 0.1 else 0


def _overriding(rng: Random, spec: Spec, steps: list[Step]) -> list[Step]:
    # By a lower node, so that none ends up below itself, and by one whose value can be a partition.
    count = len(spec.nodes)
    pairs = [(key, to) for key in range(count) for to in range(key) if spec.nodes[to].scheme in (None, *TEXTUAL)]
    # Those matter most that bring the caller in.
    telling = [pair for pair in pairs if asks_who(spec, pair[1]) and not asks_who(spec, pair[0])]
    if pairs and rng.random() < (0.6 if telling else 0.2):
        for index in rng.choices(range(len(steps)), k=rng.randint(1, 2)):
            chosen = tuple(rng.choice(rng.choice([telling or pairs, pairs])) for _ in range(rng.randint(0, 2)))
            steps[index] = replace(steps[index], overrides=chosen)
    return steps


Case = tuple[Spec, tuple[Step, ...]]


def random_case(seed: int, kinds: Sequence[str], mistakes: Sequence[str], layers: float) -> Case:
    rng = Random(seed)
    spec = random_spec(rng, rng.choice(kinds), rng.choice(mistakes))
    story = random_story(rng, spec)
    return layered(rng, spec, layers), story


def layered(rng: Random, spec: Spec, share: float) -> Spec:
    """The spec with layers before its route, in so many of the cases, and seldom with a route class of its own."""
    between: list[tuple[str, bool]] = []
    if rng.random() < share:
        between = [(rng.choice(sorted(LAYERS)), rng.random() < 0.5) for _ in range(rng.choice([1, 1, 2]))]
    own = rng.choice(["greeting", "quiet"]) if rng.random() < share / 5 else None
    return replace(spec, layers=tuple(between), route_class=own)


# -- running one --------------------------------------------------------------------------------

Seen = tuple[Any, ...]


def _seen(answer: Answer) -> Seen:
    fields = sorted((name, value) for name, value in answer.raw if name.decode().lower() not in OURS)
    return answer.status_code, answer.body, fields


class Run:
    """One app of a spec, asked what a story says."""

    def __init__(self, spec: Spec, *, on: bool, shared: bool | None = None) -> None:
        self.built: Built = build(spec, shared)
        self.clock = FakeClock()
        self.cache = HTTPCache(clock=self.clock, enabled=on)
        self.app = CacheMiddleware(self.built.app, cache=self.cache)

    async def startup(self) -> dict[str, Any]:
        """What the lifespan says of the start; it ends with the app's shutdown."""
        inbox: asyncio.Queue[Any] = asyncio.Queue()
        outbox: asyncio.Queue[Any] = asyncio.Queue()
        for kind in ("startup", "shutdown"):
            await inbox.put({"type": f"lifespan.{kind}"})
        scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
        failed = None
        try:
            await asyncio.wait_for(self.app(scope, inbox.get, outbox.put), PATIENCE)
        except ConfigurationError as error:
            failed = error
        return {"error": failed, **outbox.get_nowait()}

    async def one(self, each: Ask) -> Answer:
        return await ask(self.app, each.target, method=each.method, headers=each.headers)

    async def tell(self, story: tuple[Step, ...]) -> list[list[Answer]]:
        """The answers of each step."""
        told = []
        async with self.cache:
            for step in story:
                self.clock.tick(step.seconds)
                if step.overrides is not None:
                    calls = self.built.calls
                    self.built.provider.dependency_overrides = {calls[key]: calls[to] for key, to in step.overrides}
                told.append(list(await asyncio.gather(*map(self.one, step.asks))))
                await until(lambda: not self.cache.statistics().refreshing, "the refreshes")
        return told


async def _same_for_all(spec: Spec, story: tuple[Step, ...]) -> bool:
    """Whether every caller gets the same for what the handler itself declares, so that shared=True is true."""
    if any(step.overrides for step in story):
        return False
    run = Run(spec, on=False, shared=True)
    answers: dict[Any, Seen] = {}
    for each in {replace(each, caller="", lang=None) for step in story for each in step.asks}:
        for caller, lang in product(CALLERS, (None, "de")):
            seen = _seen(await run.one(replace(each, caller=caller, lang=lang)))
            declared = {"lang": lang, "header": CALLERS[caller].get("x-a")}
            variant = (each, *(declared.get(name) for name in spec.handler.reads))
            if answers.setdefault(variant, seen) != seen:
                return False
    return True


async def _compared(spec: Spec, story: tuple[Step, ...], shared: bool | None) -> Iterator[str]:
    cached = Run(spec, on=True, shared=shared)
    said = await cached.startup()
    if said["type"] != "lifespan.startup.complete":
        assert said["error"] is not None, said
        assert str(said["error"]) in said["message"]
        return iter(("refused",))
    plain = Run(spec, on=False, shared=shared)
    with_cache, without = await cached.tell(story), await plain.tell(story)
    what = ["accepted"]
    for step, these, those in zip(story, with_cache, without, strict=True):
        for each, this, that in zip(step.asks, these, those, strict=True):
            if _seen(this) != _seen(that):
                raise Leak(f"{each}: {_seen(this)} instead of {_seen(that)}; {this.cache}")
            what.append("hit" if this.cache is not None and this.cache.hit else "no hit")
    what += [
        name
        for name in ("partition", "guards", "inert", "layers", "route_class")
        if getattr(spec, name) and "hit" in what
    ]
    what += ["shared"] * (shared is True)
    what += ["overrides"] * any(step.overrides for step in story)
    what += ["scopes"] * has_scopes(spec)
    what += ["front"] * any(plan.front for plan in cached.app._app_context.table.plans)
    what += ["refresh"] * bool(cached.cache._core.counters.refreshes)
    return iter(what)


async def judged(spec: Spec, story: tuple[Step, ...]) -> Counter[str]:
    """What became of an app, or of it and of its twin with the author's word; raises `Leak`."""
    found = Counter(await _compared(spec, story, None))
    if found["refused"] and spec.shared and not spec.partition and await _same_for_all(spec, story):
        return Counter(await _compared(spec, story, True))
    return found


def look(
    count: int,
    judge: Callable[[Spec, tuple[Step, ...]], None],
    *,
    kinds: Sequence[str] = KINDS,
    mistakes: Sequence[str] = MISTAKES,
    layers: float = 0.3,
) -> None:
    """Judge so many random apps; the seed in a failure's report is enough to have its app again."""
    for_seeds(count, lambda seed: judge(*random_case(seed, kinds, mistakes, layers)), other=LONG)


def for_seeds(count: int, run: Callable[[int], None], *, other: bool) -> None:
    """Run for so many seeds, the same ones at each call or `other` ones; a failure's report has its seed."""
    start = secrets.randbits(64) if other else 0
    for seed in range(start, start + count):
        try:
            run(seed)
        except BaseException as error:
            error.add_note(f"with the seed {seed}")
            raise


def smaller(case: Case) -> Iterator[Case]:
    """The case with one thing less, in every way."""
    spec, story = case
    for index in range(len(story)):
        yield spec, story[:index] + story[index + 1 :]
    for level, used in spec.lists.items():
        for index in range(len(used)):
            yield replace(spec, lists={**spec.lists, level: used[:index] + used[index + 1 :]}), story
    for name in ("partition", "guards"):
        used = getattr(spec, name)
        for index in range(len(used)):
            yield replace(spec, **{name: used[:index] + used[index + 1 :]}), story
    for index in range(len(spec.layers)):
        yield replace(spec, layers=spec.layers[:index] + spec.layers[index + 1 :]), story
    if spec.route_class is not None:
        yield replace(spec, route_class=None), story
    for number, each in ((-1, spec.handler), *enumerate(spec.nodes)):
        for index in range(len(each.children)):
            less = replace(each, children=each.children[:index] + each.children[index + 1 :])
            made = (*spec.nodes[:number], less, *spec.nodes[number + 1 :])
            yield (replace(spec, handler=less) if number < 0 else replace(spec, nodes=made)), story


def smallest(case: Case, leaks: Callable[[Case], bool]) -> Case:
    """A case that leaks, of which nothing can be taken away."""
    while (found := next(filter(leaks, smaller(case)), None)) is not None:
        case = found
    return case


@pytest.fixture
def runner(caplog: pytest.LogCaptureFixture) -> Iterator[asyncio.Runner]:
    """One event loop for all apps of a test, and quiet about what is refused."""
    caplog.set_level(logging.CRITICAL, "fastapi_cacheinval")
    with asyncio.Runner() as made:
        yield made


def test_no_caller_gets_what_the_cache_makes_different(runner: asyncio.Runner) -> None:
    """Whatever tree, placement, covers, overrides and requests: bodies, statuses and fields are the app's own."""
    found: Counter[str] = Counter()

    def leaks(case: Case) -> bool:
        try:
            runner.run(judged(*case))
        except Leak:
            return True
        return False

    def judge(spec: Spec, story: tuple[Step, ...]) -> None:
        try:
            what = runner.run(judged(spec, story))
        except Leak as leak:
            leak.add_note(f"The smallest case like it:\n{pformat(smallest((spec, story), leaks))}")
            raise
        # A kind of app counts once, however often it hits.
        found.update({name: 1 if name not in ("hit", "no hit") else count for name, count in what.items()})

    look(APPS, judge)
    sys.stdout.write(f"\n{dict(found)}\n")
    apps = found["accepted"] + found["refused"]
    assert found["accepted"] >= 0.4 * apps
    assert found["hit"] >= apps
    wanted = {"partition": 0.04, "guards": 0.02, "shared": 0.01, "overrides": 0.02}
    wanted |= {"inert": 0.03, "scopes": 0.08, "front": 0.1, "refresh": 0.05, "layers": 0.1}
    assert {name: found[name] for name, share in wanted.items() if found[name] < share * apps} == {}


# -- and that it would be seen ------------------------------------------------------------------


def _by_callable_only(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(dependency_tree, "scopes_of", lambda dependant: frozenset())


def _sub_dependencies_too(patch: pytest.MonkeyPatch) -> None:
    def below(self: covers.Covers, node: dependency_tree.Node) -> bool:
        return any(node.identity == each.identity for cover in self.partitions for each in cover.walk())

    patch.setattr(covers.Covers, "keeps", below)


def _guards_like_partitions(patch: pytest.MonkeyPatch) -> None:
    def both(self: covers.Covers, node: dependency_tree.Node) -> bool:
        return node.reused and any(node.identity == each.identity for each in (*self.partitions, *self.guards))

    patch.setattr(covers.Covers, "keeps", both)


def _siblings_ignored(patch: pytest.MonkeyPatch) -> None:
    right: Any = vars(verdict)["uncovered"]

    def some(root: dependency_tree.Node, cached: Any) -> tuple[tuple[covers.Uncovered, ...], tuple[str, ...]]:
        has_covers = cached is not None and (cached.policy.partition or cached.policy.guards)
        return ((), ()) if has_covers else right(root, cached)

    patch.setattr(verdict, "uncovered", some)


def _query_of_the_handler_only(patch: pytest.MonkeyPatch) -> None:
    right: Any = vars(analysis)["query_names"]
    patch.setattr(analysis, "query_names", lambda root: right(replace(root, children=())))


def _no_partition_in_the_key(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(route_target, "partition_digest", lambda values, secret: b"")


def _no_headers_of_the_handler(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(analysis, "varying_headers", lambda root: frozenset())


def _dependencies_may_read_headers(patch: pytest.MonkeyPatch) -> None:
    right: Any = vars(covers)["caller_reads"]

    def less(node: dependency_tree.Node, **options: Any) -> tuple[Evidence, ...]:
        return tuple(each for each in right(node, **options) if "Header()" not in each.what)

    patch.setattr(covers, "caller_reads", less)


def _overrides_ignored(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(analysis, "tree_of", lambda dependant, overrides: dependency_tree.tree_of(dependant, {}))


def _overrides_share_the_key(patch: pytest.MonkeyPatch) -> None:
    right: Any = vars(route_target)["key_frame"]
    # An override's plain values are in the route's name, too.
    patch.setattr(route_target, "key_frame", lambda parts: right(parts._replace(local=b"", route=())))


def _layers_ignored(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(plan.RoutePlan, "layered", property(lambda plan: False))


def _route_classes_ignored(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(verdict, "around_the_handler", lambda route: ())


@pytest.mark.parametrize(
    ("broken", "among"),
    [
        (_by_callable_only, {"kinds": ["admin"], "mistakes": ["scopes"]}),
        (_sub_dependencies_too, {"kinds": ["any"], "mistakes": ["below"]}),
        (_guards_like_partitions, {"kinds": ["any"], "mistakes": ["swap"]}),
        (_siblings_ignored, {"kinds": ["any"], "mistakes": ["drop"]}),
        (_query_of_the_handler_only, {"kinds": ["nowhere"]}),
        (_no_partition_in_the_key, {"mistakes": [""]}),
        (_no_headers_of_the_handler, {"kinds": ["nowhere"]}),
        (_dependencies_may_read_headers, {}),
        (_overrides_ignored, {"kinds": ["aside"]}),
        (_overrides_share_the_key, {"kinds": ["nowhere", "aside"]}),
        (_layers_ignored, {"kinds": ["nowhere"], "layers": 1}),
        (_route_classes_ignored, {"kinds": ["nowhere"], "layers": 1}),
    ],
)
def test_a_broken_analysis_is_caught(
    broken: Callable[[pytest.MonkeyPatch], None],
    among: dict[str, Any],
    runner: asyncio.Runner,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With any one rule of the analysis or part of the key taken out, the same random apps leak."""
    broken(monkeypatch)
    tried = 0

    def judge(spec: Spec, story: tuple[Step, ...]) -> None:
        nonlocal tried
        tried += 1
        runner.run(judged(spec, story))

    with pytest.raises(Leak):
        look(TO_CATCH, judge, **among)
    sys.stdout.write(f"\n{broken.__name__}: caught after {tried} apps")
