"""A wheel with a file too many or too few is noticed before it is installed."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from fastapi_cacheinval import __version__

ROOT = Path(__file__).resolve().parents[2]
LICENCE = f"fastapi_cacheinval-{__version__}.dist-info/licenses/LICENSE"
PACKAGE = ROOT / "fastapi_cacheinval"
SOURCES = [path.relative_to(ROOT).as_posix() for path in sorted(PACKAGE.rglob("*.py"))]
PAGES = {
    f"fastapi_cacheinval/inspector/static/{name}"
    for name in ("index.html", "inspector.css", "inspector.js", "icon.svg")
}
COMMAND = f"fastapi_cacheinval-{__version__}.dist-info/entry_points.txt"
WHOLE = {*SOURCES, *PAGES, "fastapi_cacheinval/py.typed", COMMAND, LICENCE}


def check(tmp_path: Path, names: set[str]) -> subprocess.CompletedProcess[str]:
    """Run the script on a wheel of these files."""
    wheel = tmp_path / f"fastapi_cacheinval-{__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in sorted(names):
            archive.writestr(name, b"")
    return subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "wheel_contents.py"), str(wheel)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_wheel_of_the_package_and_its_licence_passes(tmp_path: Path) -> None:
    """All modules, the files of pages, py.typed, the console script and the licence are enough."""
    assert check(tmp_path, WHOLE).returncode == 0


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (WHOLE - {COMMAND}, "no console script"),
        (WHOLE | {"tests/test_it.py"}, "foreign file tests/test_it.py"),
        (WHOLE | {"example_app/main.py"}, "foreign file example_app/main.py"),
        (WHOLE - {"fastapi_cacheinval/py.typed"}, "no py.typed"),
        (WHOLE - {"fastapi_cacheinval/errors.py"}, "missing fastapi_cacheinval/errors.py"),
        (
            WHOLE - {"fastapi_cacheinval/inspector/static/inspector.js"},
            "missing fastapi_cacheinval/inspector/static/inspector.js",
        ),
        (WHOLE - {LICENCE}, "no licence"),
    ],
    ids=[
        "a missing command",
        "tests",
        "example",
        "no-marker",
        "a-module-missing",
        "a-file-of-a-page-missing",
        "no-licence",
    ],
)
def test_a_wheel_with_too_much_or_too_little_fails(tmp_path: Path, names: set[str], said: str) -> None:
    """The script exits with an error that names the file."""
    result = check(tmp_path, names)
    assert result.returncode == 1
    assert said in result.stderr
