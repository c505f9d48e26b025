"""The run is strict: nothing is skipped, nothing warns, no test runs for ever."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def run(tmp_path: Path, source: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run pytest on one module with this project's configuration and conftest."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path)
    (tmp_path / "test_it.py").write_text(source)
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments, "test_it.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("arguments", [[], ["-n", "1"]], ids=["alone", "in-a-worker"])
@pytest.mark.parametrize(
    "source",
    [
        "import pytest\n\ndef test_it():\n    pytest.skip('not today')\n",
        "import pytest\n\n@pytest.mark.skipif(True, reason='not today')\ndef test_it():\n    pass\n",
        "import pytest\n\npytest.skip('not today', allow_module_level=True)\n",
        "import pytest\n\npytest.importorskip('no_such_module')\n",
    ],
    ids=["in-the-test", "by-a-mark", "the-module", "by-import"],
)
def test_a_skipped_test_fails_the_run(tmp_path: Path, source: str, arguments: list[str]) -> None:
    """However a test is skipped, the run exits with an error that says so."""
    result = run(tmp_path, source, *arguments)
    assert result.returncode in {1, 2}, result.stdout
    assert "skipped, which fails the run" in result.stdout


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (
            "import warnings\n\ndef test_it():\n    warnings.warn('old', DeprecationWarning)\n",
            "DeprecationWarning: old",
        ),
        ("import pytest\n\n@pytest.mark.no_such_mark\ndef test_it():\n    pass\n", "no_such_mark"),
        ("import pytest\n\n@pytest.mark.xfail\ndef test_it():\n    pass\n", "XPASS(strict)"),
        ("async def test_it():\n    pass\n", "async def functions are not natively supported"),
        ("import pytest, time\n\n@pytest.mark.timeout(0.1)\ndef test_it():\n    time.sleep(30)\n", "Timeout"),
    ],
    ids=["a-warning", "an-unknown-mark", "an-unexpected-pass", "a-coroutine-that-nobody-runs", "a-test-that-hangs"],
)
def test_what_is_not_as_it_should_be_fails_the_run(tmp_path: Path, source: str, said: str) -> None:
    """Warnings, unknown marks, stale xfails, forgotten anyio marks and hanging tests are failures."""
    result = run(tmp_path, source)
    assert result.returncode in {1, 2}, result.stdout
    assert said in result.stdout + result.stderr


def test_a_coroutine_test_with_the_anyio_mark_runs_on_asyncio(tmp_path: Path) -> None:
    """The mark runs a coroutine once, under asyncio."""
    source = (
        "import asyncio\nimport pytest\n\n@pytest.mark.anyio\nasync def test_it():\n"
        "    assert asyncio.get_running_loop().is_running()\n"
    )
    result = run(tmp_path, source)
    assert result.returncode == 0, result.stdout
    assert "1 passed" in result.stdout


def test_shares_are_all_tests_once(tmp_path: Path) -> None:
    """The shares have no test in common and leave none out; the cases of one test are in one share."""
    source = "import pytest\n\n" + "".join(
        f"@pytest.mark.parametrize('case', [1, 2])\ndef test_{number}(case):\n    pass\n\n" for number in range(12)
    )
    shares = [
        {
            line
            for line in run(tmp_path, source, "--collect-only", "-q", "--share", f"{share}/3").stdout.split()
            if "::" in line
        }
        for share in (1, 2, 3)
    ]
    assert sum(map(len, shares)) == len(set().union(*shares)) == 24
    assert all(shares)
    for share in shares:
        assert len({name.partition("[")[0] for name in share}) == len(share) / 2


@pytest.mark.parametrize("asked", ["4/3", "0/3", "x", "1/0", "-1/2"])
def test_a_share_that_is_none_is_refused(tmp_path: Path, asked: str) -> None:
    """A slip in the number runs nothing, and says what it has to look like."""
    result = run(tmp_path, "def test_it():\n    pass\n", f"--share={asked}")
    assert result.returncode == 4
    assert "--share is K/N" in result.stderr
