"""The map of the tests, `tests/README.md`, holds what is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAP = (ROOT / "tests" / "README.md").read_text()
PACKAGE = ROOT / "fastapi_cacheinval"


def _rooms() -> list[str]:
    folders = [f"{path.parent.name}/" for path in PACKAGE.glob("*/__init__.py")]
    return sorted(
        [*folders, *(path.name for path in PACKAGE.glob("*.py") if path.name not in ("__init__.py", "errors.py"))]
    )


@pytest.mark.parametrize("room", _rooms())
def test_each_part_of_the_package_is_on_the_map(room: str) -> None:
    """Every folder and every module at the top of the package has a row that says where its tests are."""
    assert f"`{room}`" in MAP


@pytest.mark.parametrize("folder", sorted(path.name for path in (ROOT / "tests").iterdir() if path.is_dir()))
def test_each_folder_of_tests_is_on_the_map(folder: str) -> None:
    """No folder of tests is left out."""
    if folder != "__pycache__":
        assert f"tests/{folder}" in MAP


@pytest.mark.parametrize("place", sorted(set(re.findall(r"`(tests/[\w/.]+)`", MAP))))
def test_what_the_map_names_is_there(place: str) -> None:
    """Every folder and file that the map names exists."""
    assert (ROOT / place).exists()


@pytest.mark.parametrize("promise", [f"G{number}" for number in range(1, 10)])
def test_each_promise_has_a_suite(promise: str) -> None:
    """The map says which suites prove each promise."""
    assert re.search(rf"^\| {promise}, .*tests/", MAP, re.MULTILINE)
