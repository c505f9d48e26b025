"""Runs of pytest with the plugin, on small apps with planted faults."""

from __future__ import annotations

import multiprocessing
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
APPS = Path(__file__).parent / "apps"
# Each run is a fork of a process that has imported what takes long, and done nothing else.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["pytest", "fastapi.testclient", "fastapi_cacheinval.contrib.sqlalchemy"])
CLIENT = """
import pytest
from fastapi.testclient import TestClient
from {app} import app, cache

ANN, BOB = {{"Authorization": "Bearer ann"}}, {{"Authorization": "Bearer bob"}}

@pytest.fixture
def cache_under_test():
    return cache

@pytest.fixture
def client(http_cache):
    with TestClient(app) as client:
        yield client
"""


@dataclass(frozen=True)
class Ran:
    """How a run ended, and what it wrote."""

    status: int
    text: str

    @property
    def counts(self) -> dict[str, int]:
        """By outcome, as the last line has it."""
        last = self.text.strip().splitlines()[-1]
        return {
            name.rstrip("s") if name == "errors" else name: int(count)
            for count, name in re.findall(r"(\d+) (passed|failed|errors?|warnings?)", last)
        }


Run = Callable[..., Ran]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run pytest in a process of its own: `app` is one of the apps, `source` the tests of it."""

    def run_one(app: str, source: str, *options: str, ini: str = "", plugin: bool = True) -> Ran:
        shutil.copy(APPS / f"{app}.py", tmp_path)
        (tmp_path / "pytest.ini").write_text(f"[pytest]\n{textwrap.dedent(ini)}")
        (tmp_path / "test_it.py").write_text(CLIENT.format(app=app) + textwrap.dedent(source))
        return start(tmp_path, "test_it.py", *options, plugin=plugin)

    return run_one


def _run(folder: Path, arguments: list[str], output: Path) -> None:
    """In a process of its own: run pytest in a folder, and leave what it writes in a file."""
    with output.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.chdir(folder)
    if "-n" not in arguments:
        # None of the plugins that are installed has a part in it.
        os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    sys.path.insert(0, str(folder))
    os.environ["PYTHONPATH"] = f"{ROOT}{os.pathsep}{folder}"
    status = int(pytest.main(arguments))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def start(folder: Path, *options: str, plugin: bool = True) -> Ran:
    """Run pytest in a folder."""
    named = ["-p", "fastapi_cacheinval.pytest_plugin"] if plugin else []
    arguments = [
        "-q",
        "-W",
        "error",
        "-W",
        "ignore::pytest.PytestAssertRewriteWarning",
        "-W",  # an old Starlette beside a new AnyIO
        "ignore:The anyio.abc.BlockingPortal alias is deprecated:DeprecationWarning",
        "-p",
        "no:cacheprovider",
        *named,
        *options,
    ]
    output = folder / "output.txt"
    child = FORKS.Process(target=_run, args=(folder, arguments, output))
    child.start()
    child.join()
    status = child.exitcode
    child.close()
    assert status is not None
    return Ran(status, output.read_text())
