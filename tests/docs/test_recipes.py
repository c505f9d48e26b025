"""The page of recipes: its settings are settings, and the frameworks that it names are cached as it says."""

from __future__ import annotations

import importlib
import re
from typing import Any

import httpx
import pytest

from fastapi_cacheinval import HTTPCache
from tests.helpers.documents import EXAMPLES, ROOT, blocks, served

PAGE = ROOT / "docs" / "recipes.md"
_yaml: Any = importlib.import_module("yaml")
STALENESS_BOUND = HTTPCache().settings.staleness_bound


def pod() -> dict[str, Any]:
    """What the page gives each pod."""
    [block] = [block for block in blocks(None, language="text") if block.page == PAGE and "livenessProbe" in block.text]
    return _yaml.safe_load(block.text)


def test_the_variables_of_a_pod_make_a_cache() -> None:
    """`from_env()` takes each variable, by its value or one from a secret."""
    environ = {each["name"]: each.get("value", "a secret of the examples") for each in pod()["env"]}
    cache = HTTPCache.from_env(environ)
    assert cache.settings.namespace == "orders"
    assert cache.settings.version == "2026-11-29"
    assert cache.settings.secret is not None


def test_a_pod_has_time_for_its_last_purges() -> None:
    """The grace period is longer than the bound that the page names beside it."""
    assert f"`staleness_bound` ({STALENESS_BOUND:g} s)" in PAGE.read_text("utf-8")
    assert pod()["terminationGracePeriodSeconds"] > STALENESS_BOUND


@pytest.mark.parametrize("framework", ["starlette", "litestar", "django"])
def test_a_framework_is_cached_by_its_headers(framework: str) -> None:
    """The list is a hit, a PUT of one price purges it, and the next request has the new price."""
    with served(EXAMPLES / f"{framework}_prices.py") as base, httpx.Client(base_url=base, trust_env=False) as client:
        assert client.get("/prices").json() == {"42": 30}
        assert re.match("cacheinval; hit", client.get("/prices").headers["cache-status"])
        changed = client.put("/prices/42", params={"price": 20})
        assert changed.is_success
        assert changed.headers["cacheinval-purge"] == "done"
        assert client.get("/prices").json() == {"42": 20}


def test_the_page_shows_each_framework() -> None:
    """No framework is tested here that the page does not show."""
    shown = {block.example.name for block in blocks("part of") if block.page == PAGE}
    assert {f"{name}_prices.py" for name in ("starlette", "litestar", "django")} <= shown
