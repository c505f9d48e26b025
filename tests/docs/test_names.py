"""What the documentation names exists, and what exists is documented."""

from __future__ import annotations

import ast
import inspect
import logging
import pkgutil
import re
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import fastapi_cacheinval
from fastapi_cacheinval import (
    CacheMiddleware,
    CachePolicy,
    HeaderOptions,
    HeaderRule,
    HTTPCache,
    Receipt,
    RouteStatistics,
    SourceState,
    Statistics,
    contrib,
    invalidates,
)
from fastapi_cacheinval.contrib.outbox import Outbox, OutboxRelay
from fastapi_cacheinval.contrib.sqs import Message, SQSSource
from fastapi_cacheinval.engine.settings import Options
from fastapi_cacheinval.inspector import Inspector
from fastapi_cacheinval.testing import Replicas
from tests.helpers.documents import PAGES, ROOT, prose

POLICY = {field.name for field in fields(CachePolicy) if field.init}
SETTINGS = set(Options.__annotations__) | {"clock", "enabled"}
MIDDLEWARE = set(inspect.signature(CacheMiddleware.__init__).parameters) - {"self", "app"}
REPLICAS = set(inspect.signature(Replicas.__init__).parameters) - {"self"}
SQS = set(inspect.signature(SQSSource.__init__).parameters) - {"self", "cache"}
INSPECTOR = set(inspect.signature(Inspector.__init__).parameters) - {"self", "cache"}
DECLARED = set(inspect.signature(invalidates).parameters)
KEYWORDS: dict[str, set[str]] = {
    "HTTPCache": SETTINGS,
    "HTTPCache.from_url": SETTINGS,
    "CachePolicy": POLICY,
    "HeaderOptions": {field.name for field in fields(HeaderOptions) if field.init},
    "HeaderRule": {field.name for field in fields(HeaderRule)},
    "cached": POLICY,
    "CacheMiddleware": MIDDLEWARE,
    "invalidates": DECLARED,
    "Replicas": REPLICAS,
    "SQSSource": SQS,
    "Inspector": INSPECTOR,
}
# What other packages call theirs, and the words of Cache-Status.
FOREIGN = {"scope", "dependencies", "key", "expire", "key_builder", "coder", "enable", "ttl", "fwd", "detail"}
PURGES = set(inspect.signature(HTTPCache.invalidate).parameters) | set(inspect.signature(HTTPCache.deliver).parameters)


def integrations() -> set[str]:
    """The options of what the integrations export."""
    found: set[str] = set()
    for module in pkgutil.walk_packages(contrib.__path__, "fastapi_cacheinval.contrib."):
        if module.name.rpartition(".")[2].startswith("_"):
            # Nobody but its integration calls what is in there.
            continue
        there = import_module(module.name)
        for name in getattr(there, "__all__", ()):
            thing = getattr(there, name)
            # An exception's arguments are nobody's options, and an alias of a type has none.
            if inspect.isfunction(thing) or (inspect.isclass(thing) and not issubclass(thing, BaseException)):
                found |= set(inspect.signature(thing).parameters)
    return found


OPTIONS = set().union(*KEYWORDS.values(), PURGES, integrations(), {"secret"}, FOREIGN)


def spans(page: Path) -> list[str]:
    return re.findall(r"`([^`\n]+)`", prose(page))


def named(page: Path) -> str:
    return page.name


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_modules_and_their_names_exist(page: Path) -> None:
    """A dotted name of the package can be imported, attributes included, or is one of its loggers."""
    text = page.read_text("utf-8")
    for dotted in set(re.findall(r"\bfastapi_cacheinval(?:\.\w+)+", text)):
        if dotted in logging.root.manager.loggerDict:
            continue
        found: Any = fastapi_cacheinval
        path = "fastapi_cacheinval"
        for part in dotted.split(".")[1:]:
            path += f".{part}"
            found = getattr(found, part, None) or import_module(path)


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_options_in_calls_exist(page: Path) -> None:
    """`cached(ttl=0)` and the like use keywords that the callable has."""
    for span in spans(page):
        try:
            call = ast.parse(span.replace("...", "None"), mode="eval").body
        except SyntaxError:
            continue
        if isinstance(call, ast.Await):
            call = call.value
        if not isinstance(call, ast.Call):
            continue
        name = ast.unparse(call.func)
        given = {keyword.arg for keyword in call.keywords if keyword.arg is not None}
        if name in KEYWORDS:
            assert given <= KEYWORDS[name], span
        if name.startswith("cache."):
            method = getattr(HTTPCache, name.removeprefix("cache."))
            assert given <= set(inspect.signature(method).parameters), span


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_options_by_themselves_exist(page: Path) -> None:
    """`soft=True` and `partition_by=` name an option of something."""
    for span in spans(page):
        match = re.fullmatch(r"([a-z_0-9]+)=[^;]*", span)
        if match is not None:
            assert match[1] in OPTIONS, span


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_errors_and_classes_exist(page: Path) -> None:
    """Names in capitals that look like ours are exported."""
    for span in spans(page):
        if re.fullmatch(r"(?:Cache|Caller|Configuration|Middleware|Purge|HTTPCache)\w*", span):
            assert span in {"Cache", *fastapi_cacheinval.__all__}, span


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("policies.md", POLICY),
        ("settings.md", SETTINGS),
        ("middleware-order.md", MIDDLEWARE),
        (
            "statistics.md",
            {field.name for kind in (Statistics, SourceState, RouteStatistics) for field in fields(kind)},
        ),
        ("invalidation.md", {field.name for field in fields(Receipt)}),
        ("testing.md", REPLICAS | {name for name in vars(Replicas) if not name.startswith("_")}),
        ("inspector.md", INSPECTOR),
        ("sqs.md", SQS | {field.name for field in fields(Message)}),
        ("outbox.md", set(inspect.signature(OutboxRelay).parameters) - {"cache", "engine", "outbox"}),
        ("outbox.md", set(inspect.signature(Outbox).parameters)),
        ("outbox.md", set(inspect.signature(Outbox.triggers).parameters) - {"self"}),
        ("testing.md", {"FakeClock", "assert_hit", "assert_stale", "assert_miss", "capture_invalidations"}),
    ],
)
def test_nothing_is_left_out(page: str, names: set[str]) -> None:
    """The page of a thing names each of its fields or options."""
    text = " ".join(spans(ROOT / "docs" / page))
    assert {name for name in names if not re.search(rf"\b{name}\b", text)} == set()


def test_all_that_is_exported_is_documented() -> None:
    """Each public name stands on some page."""
    everything = " ".join(page.read_text("utf-8") for page in PAGES)
    assert [name for name in fastapi_cacheinval.__all__ if not re.search(rf"\b{name}\b", everything)] == []


def test_every_detail_that_the_cache_gives_is_documented() -> None:
    """Each `detail` token in the code stands on the page about trouble."""
    sources = [
        Path(str(module.module_finder.path)) / f"{module.name.rpartition('.')[2]}.py"  # type: ignore[union-attr]
        for module in pkgutil.walk_packages(fastapi_cacheinval.__path__, "fastapi_cacheinval.")
        if not module.ispkg
    ]
    code = "\n".join(source.read_text("utf-8") for source in sources)
    lines = [line for line in code.splitlines() if re.search(r"\bdetail ?= ?", line)]
    found = {detail for line in lines for detail in re.findall(r'(?<!b)"([a-z-]+)"', line)} | set(
        re.findall(r'\b(?:_?bypass|bypassed|Refuse)\((?:\w+, )?"([a-z-]+)"', code)
    )
    found |= set(re.findall(r'\bclosed ?= ?.*"([a-z-]+)"', code))
    for given in ("core/storing.py", "core/rfc9111/storing.py", "framework/reading.py", "framework/rfc9111/lookup.py"):
        found |= set(re.findall(r'return "([a-z-]+)"', (ROOT / "fastapi_cacheinval" / given).read_text("utf-8")))
    assert {"set-cookie", "disabled", "late-purge", "behind", "unseen-inside", "content", "too-many-tags"} <= found
    documented = (ROOT / "docs/troubleshooting.md").read_text("utf-8")
    assert {detail for detail in found if detail not in documented} == set()
