"""Runs of pytest with the plugin, on small apps with planted faults."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from os import environ
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
APPS = Path(__file__).parent / "apps"
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


def start(folder: Path, *options: str, plugin: bool = True) -> Ran:
    """Run pytest in a folder."""
    named = ["-p", "fastapi_cacheinval.pytest_plugin"] if plugin else []
    command = [sys.executable, "-W", "error", "-m", "pytest", "-q", "-p", "no:cacheprovider", *named, *options]
    path = f"{ROOT}:{folder}"
    ended = subprocess.run(
        command, cwd=folder, env={**environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False
    )
    return Ran(ended.returncode, ended.stdout + ended.stderr)
