"""The interface is typed for its users: what they write passes strict checks, and wrong calls are refused."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
USER_CODE = ROOT / "tests" / "typing" / "user_code.py"


def run(arguments: list[str], tmp_path: Path) -> None:
    """Run a type checker outside the checkout's configuration; fail with all it says."""
    result = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": str(ROOT), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode:
        pytest.fail(result.stdout + result.stderr, pytrace=False)


@pytest.mark.timeout(240)  # a checker reads the whole of FastAPI and pydantic when its cache is empty
def test_mypy_strict_accepts_what_users_write_and_refuses_wrong_calls(tmp_path: Path) -> None:
    """Strict mypy finds each asserted type as asserted and each `type: ignore` needed."""
    (tmp_path / "mypy.ini").write_text("[mypy]\nstrict = true\n")
    run(["mypy", "--config-file", "mypy.ini", "--cache-dir", str(tmp_path / "cache"), str(USER_CODE)], tmp_path)


@pytest.mark.timeout(240)
def test_pyright_strict_accepts_what_users_write_and_refuses_wrong_calls(tmp_path: Path) -> None:
    """Strict pyright finds each asserted type as asserted and each `pyright: ignore` needed."""
    (tmp_path / "user_code.py").write_text(USER_CODE.read_text())
    (tmp_path / "pyrightconfig.json").write_text(
        '{"typeCheckingMode": "strict", "reportUnnecessaryTypeIgnoreComment": "error", "enableTypeIgnoreComments": false,'
        f' "extraPaths": ["{ROOT.as_posix()}"], "include": ["user_code.py"]}}'
    )
    run(["pyright", "--pythonpath", sys.executable, "--project", str(tmp_path)], tmp_path)
