"""How many workers serve an app: from the command line, the environment, and the server's own configuration."""

from __future__ import annotations

import logging
import multiprocessing
from types import SimpleNamespace

import pytest
from uvicorn import Config

from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.engine.workers import server_of_this_process, several_workers

CASES = [
    ("uvicorn app:app", {}, 1),
    ("uvicorn app:app --workers 4", {}, 4),
    ("/venv/bin/uvicorn app:app --workers=4", {}, 4),
    ("/venv/lib/uvicorn/__main__.py app:app --workers 4", {}, 4),
    ("uvicorn app:app --workers 1", {"WEB_CONCURRENCY": "4"}, 1),
    ("uvicorn app:app", {"WEB_CONCURRENCY": "4"}, 4),
    ("uvicorn app:app --reload", {"WEB_CONCURRENCY": "4"}, 1),
    ("uvicorn app:app --reload --workers 4", {}, 1),
    ("uvicorn app:app --workers", {}, 1),
    ("uvicorn app:app", {"WEB_CONCURRENCY": "many"}, 1),
    ("uvicorn app:app", {"WEB_CONCURRENCY": "0"}, 1),
    ("fastapi run app.py --workers 2", {}, 2),
    ("fastapi run app.py", {"WEB_CONCURRENCY": "2"}, 2),
    ("fastapi dev app.py", {"WEB_CONCURRENCY": "2"}, 1),
    ("gunicorn -w 3 -k uvicorn_worker.UvicornWorker app:app", {}, 3),
    ("gunicorn -w3 app:app", {}, 3),
    ("gunicorn app:app", {"GUNICORN_CMD_ARGS": "--bind :80 --workers=3"}, 3),
    ("gunicorn -w 1 app:app", {"GUNICORN_CMD_ARGS": "--workers=3", "WEB_CONCURRENCY": "3"}, 1),
    ("gunicorn app:app", {"WEB_CONCURRENCY": "3"}, 3),
    ("hypercorn -w 2 app:app", {"WEB_CONCURRENCY": "8"}, 2),
    ("hypercorn app:app", {"WEB_CONCURRENCY": "8"}, 1),
    ("granian --interface asgi --workers 2 app:app", {}, 2),
    # Not servers: a test run on a platform that sets the variable, a script, an interactive interpreter.
    ("/venv/bin/pytest -n 4", {"WEB_CONCURRENCY": "4"}, 1),
    ("/venv/lib/pytest/__main__.py --workers 4", {"WEB_CONCURRENCY": "4"}, 1),
    ("manage.py --workers 4", {"WEB_CONCURRENCY": "4"}, 1),
    ("", {"WEB_CONCURRENCY": "4"}, 1),
]


@pytest.mark.parametrize(("command", "environment", "count"), CASES)
def test_the_command_line_and_the_environment_say_how_many(
    command: str, environment: dict[str, str], count: int
) -> None:
    """Each server's own options and variables count, and nothing else's; one that reloads has one worker."""
    assert several_workers(command.split(), environment) == count


def test_without_any_argument_there_is_one() -> None:
    """An embedded interpreter may have an empty `sys.argv`."""
    assert several_workers([], {"WEB_CONCURRENCY": "4"}) == 1


@pytest.mark.parametrize(
    ("server", "count"),
    [
        (Config("app:app", workers=4), 4),
        (Config("app:app"), 1),
        (SimpleNamespace(workers=3, reload=False), 3),
        (SimpleNamespace(workers=3, reload=True), 1),
        (SimpleNamespace(workers=0, reload=False), 1),
        (SimpleNamespace(), 1),
    ],
)
def test_the_servers_own_configuration_decides_where_it_is_found(server: object, count: int) -> None:
    """A server started by a script has no command line to read; its configuration overrules the rest."""
    assert several_workers(["uvicorn", "app:app", "--workers", "9"], {"WEB_CONCURRENCY": "9"}, server) == count


def test_the_configuration_is_that_with_which_uvicorn_spawned_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a `config` of uvicorn's counts; another program's process with an argument of that name does not."""
    assert server_of_this_process() is None
    config = Config("app:app", workers=2)
    process = multiprocessing.current_process()
    monkeypatch.setattr(process, "_kwargs", {"config": config}, raising=False)
    assert server_of_this_process() is config
    monkeypatch.setattr(process, "_kwargs", {"config": SimpleNamespace(workers=9)}, raising=False)
    assert server_of_this_process() is None


def test_the_configuration_of_gunicorn_is_found_below_on_the_stack() -> None:
    """A forked worker of gunicorn runs inside the arbiter's frame, also where the number is in a file."""
    scope: dict[str, object] = {"__name__": "gunicorn.arbiter", "ask": server_of_this_process}
    exec("def run(self):\n    return ask()\n", scope)
    run = scope["run"]
    assert callable(run)
    config = SimpleNamespace(workers=5, reload=False)
    assert run(SimpleNamespace(cfg=config)) is config


@pytest.mark.anyio
async def test_the_warning_is_said_once_per_cache_and_names_the_number(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """At the first start, not at the next, and not where the cache is only made."""
    monkeypatch.setattr("sys.argv", ["uvicorn", "app:app", "--workers", "4"])
    cache = HTTPCache()
    assert not caplog.records
    for _ in range(2):
        async with cache:
            pass
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "one of 4 workers" in record.getMessage()
    assert "purges" in record.getMessage()


@pytest.mark.anyio
async def test_a_test_run_is_not_warned(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """This very process, with WEB_CONCURRENCY set as hosting platforms do: no word."""
    monkeypatch.setenv("WEB_CONCURRENCY", "4")
    async with HTTPCache():
        pass
    assert not caplog.records
