"""`cacheinval audit` imports an app as a server does, shows what its routes say, and fails where CI should."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.calls import Called, called

HEAD = """
from typing import Annotated
from fastapi import Cookie, FastAPI
from fastapi_cacheinval import CacheMiddleware, HTTPCache, cached, invalidates
app = FastAPI()
app.add_middleware(CacheMiddleware, cache=HTTPCache.from_url("redis://127.0.0.1:1/0"))
"""
PAGE = """
@app.get("/pages/{page}", dependencies=[cached(ttl=60, stale_if_error=5, tags=["page:{page}"])])
async def read_page(page: int) -> int:
    return page
"""
WRITE = """
@app.put("/pages/{page}", dependencies=[invalidates("page:{page}")])
async def write_page(page: int) -> int:
    return page
"""
numbers = itertools.count()

Audit = Callable[..., Called]


@pytest.fixture
def audit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Audit:
    """Audit an app that is written in these lines."""
    monkeypatch.setattr(sys, "path", list(sys.path))

    def call(text: str, *options: str, name: str = "app", columns: int = 100) -> Called:
        module = f"audited_{next(numbers)}"
        (tmp_path / f"{module}.py").write_text(text, "utf-8")
        arguments = ("audit", f"{module}:{name}", "--app-dir", str(tmp_path), *options)
        return called(*arguments, env={"COLUMNS": str(columns)})

    return call


def test_an_app_without_holes_passes(audit: Audit) -> None:
    """Nothing is connected: the Redis of this app is not there."""
    shown = audit(HEAD + PAGE + WRITE, "--strict")
    assert shown.code == 0, shown
    assert "GET /pages/{page}\n  shared by     everyone: " in shown.out
    assert "  tags          page:{page}\n" in shown.out
    assert "  fresh         for 60 s, on errors for 5 s\n" in shown.out
    assert "  purged by     PUT /pages/{page}\n" in shown.out
    assert "  PUT /pages/{page} purges GET /pages/{page}\n" in shown.out
    assert "No holes\n1 cached route, 0 other GET routes, 1 mutation\n" in shown.out


@pytest.mark.parametrize(
    ("route", "says"),
    [
        ('@app.put("/brands/{brand}", dependencies=[invalidates("brand:{brand}")])\nasync def write(brand: str) -> None: ...\n',
         "purges brand:{brand}, which no page declares; a page may add it"),
        ('@app.post("/found")\nasync def find(tags: CacheTags) -> None: ...\n', "purges tags that it adds while answering"),
        ('@app.post("/searches", dependencies=[invalidates_nothing()])\nasync def find() -> None: ...\n',
         "purges nothing, as declared"),
        ('@app.post("/elsewhere")\nasync def write() -> None: ...\n', "purges nothing\n"),
    ],
)  # fmt: skip
def test_a_mutation_that_purges_no_known_page_says_why(audit: Audit, route: str, says: str) -> None:
    """Its tags are told where no page declares them: pages add tags while answering, which no declaration shows."""
    shown = audit(HEAD + PAGE + "from fastapi_cacheinval import CacheTags, invalidates_nothing\n" + route, columns=200)
    assert says in shown.out


def test_a_hole_fails_where_that_is_asked_for(audit: Audit) -> None:
    """And is printed in any case; `--holes` prints nothing beside them."""
    shown = audit(HEAD + PAGE)
    assert shown.code == 0
    assert "- GET /pages/{page} is cached, and no mutation purges it." in shown.out
    strict = audit(HEAD + PAGE, "--strict", "--holes")
    assert strict.code == 1
    assert "shared by" not in strict.out
    assert audit(HEAD + PAGE, "--strict", "--changes-elsewhere").code == 0


def test_json_is_the_whole_audit(audit: Audit) -> None:
    """With its holes as lines."""
    data = audit(HEAD + PAGE, "--json").json
    assert data["routes"][0]["route"] == "GET /pages/{page}"
    assert data["unpurged"] == ["GET /pages/{page}"]
    assert data["holes"][0] == "GET /pages/{page} is cached, and no mutation purges it."


def test_an_app_that_would_not_start_is_audited_and_fails(audit: Audit) -> None:
    """With why, as the app itself would say it at start-up."""
    shown = audit(
        HEAD + '@app.get("/me", dependencies=[cached(ttl=60)])\n'
        "async def read(session: Annotated[str, Cookie()]) -> str:\n    return session\n"
    )
    assert shown.code == 4
    assert "The cached route /me may answer each caller differently" in shown.out


@pytest.mark.parametrize(
    ("text", "name", "says"),
    [
        ("app = 1", "other", "has no 'other'"),
        (HEAD, "ap", "Near: app."),
        ("app = 1", "app", "needs a FastAPI or Starlette application"),
        ("from fastapi import FastAPI\napp = FastAPI()", "app", "no CacheMiddleware"),
        ("raise ValueError('no \\x1b[31mdatabase')", "app", "ValueError: no \\x1b[31mdatabase"),
        ("import sys\nsys.exit('bye')", "app", "SystemExit: bye"),
        ("import nothing_of_this_name", "app", "No module named 'nothing_of_this_name'"),
        ("def app(:", "app", "SyntaxError"),
        ("import sys\nsys.setrecursionlimit(200)\ndef f(): f()\nf()", "app", "RecursionError"),
    ],
)
def test_an_app_that_cannot_be_had_is_one_message(audit: Audit, text: str, name: str, says: str) -> None:
    """Exit code 4, no traceback, and the line of the app's own where it was raised."""
    limit = sys.getrecursionlimit()
    try:
        shown = audit(text, name=name)
    finally:
        sys.setrecursionlimit(limit)
    assert (shown.code, shown.out) == (4, "")
    assert says in shown.err
    assert "Traceback" not in shown.err
    assert "\x1b" not in shown.err


def test_where_the_import_failed_is_told(audit: Audit) -> None:
    """The file and the line of the user's."""
    shown = audit("import json\n\nvalue = json.loads('{')\n")
    assert ", line 3: value = json.loads('{')" in shown.err


def test_what_the_app_prints_is_not_the_output(audit: Audit) -> None:
    """So that JSON stays JSON."""
    shown = audit("print('starting up')\n" + HEAD, "--json")
    assert shown.json["routes"] == []
    assert "starting up" in shown.err


def test_a_factory_makes_the_app(audit: Audit) -> None:
    """And what it raises is told as well."""
    made = HEAD + PAGE + "def make():\n    return app\ndef fail():\n    raise RuntimeError('no settings')\n"
    assert audit(made, "--factory", "--json", name="make").json["routes"] != []
    failed = audit(made, "--factory", name="fail")
    assert failed.code == 4
    assert "RuntimeError: no settings" in failed.err


def test_names_that_are_no_import_string_are_a_wrong_call() -> None:
    """Exit code 2; a module that is not there is the app's fault, 4."""
    for name in ("app", ":app", "app:", ""):
        assert called("audit", name).code == 2
    missing = called("audit", "nothing_of_this_name:app")
    assert missing.code == 4
    assert "--app-dir" in missing.err
    assert called("audit", "nothing_of_this_name.main:app").code == 4


def test_hostile_paths_and_tags_are_written_out_in_forty_columns(audit: Audit) -> None:
    """No line is longer than the terminal, and none holds what it would obey."""
    shown = audit(
        HEAD + f'@app.get("/{"long" * 50}/\\x1b[31m\\u202e", dependencies=[cached(ttl=60, tags=["a" * 200])])\n'
        "async def read() -> None: ...\n",
        columns=40,
    )
    assert shown.code == 0
    assert "\x1b" not in shown.out
    assert "\u202e" not in shown.out
    assert max(map(len, shown.out.splitlines())) <= 40


@pytest.mark.timeout(120)
def test_ten_thousand_routes_are_audited(audit: Audit) -> None:
    """In one go, as text and as JSON; the holes are counted."""
    text = HEAD + (
        "async def read(number: int) -> int:\n    return number\n"
        "for number in range(10_000):\n"
        "    app.get(f'/r{number}/{{number}}', dependencies=[cached(ttl=60)])(read)\n"
    )
    shown = audit(text, "--holes")
    assert shown.code == 0
    assert "10,000 holes" in shown.out
