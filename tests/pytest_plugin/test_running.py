"""The plugin is inert until it is asked, can be limited, says what it cost, and refuses what it cannot do."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pytest_plugin.conftest import APPS, ROOT, Run, start

SEARCHES = ("--cacheinval-leaks", "--cacheinval-missing-tags", "--cacheinval-unpurged")
MANY = 'def test_it(client):\n    for number in range(40):\n        client.get("/number")\n'


def test_it_is_silent_on_the_example_app(tmp_path: Path) -> None:
    """Every cached page of the example, as nobody, as users and as its administrator, before and after changes."""
    shutil.copy(APPS / "showroom_suite.py", tmp_path / "test_showroom.py")
    ran = start(tmp_path, *SEARCHES)
    assert ran.counts == {"passed": 2}, ran.text
    assert " 0 found" in ran.text
    # 9 pages by 4 callers: twice in one test, three times in the other.
    checked = re.search(r"(\d+) requests checked", ran.text)
    assert checked is not None
    assert int(checked[1]) >= 5 * 9 * 4


def test_it_is_not_loaded_unasked(run: Run) -> None:
    """Without its name in the command or in a conftest there is no option and no fixture of it."""
    ran = run("leaky", "def test_it(http_cache):\n    pass\n", plugin=False)
    assert ran.counts == {"error": 1}, ran.text
    assert "fixture 'http_cache' not found" in ran.text


def test_searches_can_be_asked_for_in_the_ini_file(run: Run) -> None:
    """Ini options do as the command's do."""
    source = 'def test_it(client):\n    client.get("/me", headers=ANN)\n'
    ran = run("leaky", source, ini="cacheinval_leaks = true\ncacheinval_share = 1.0\n")
    assert ran.counts == {"failed": 1}, ran.text


def test_a_mark_switches_a_search_on_or_off(run: Run) -> None:
    """The nearest mark counts."""
    ran = run(
        "leaky",
        """
        def test_on(client):
            client.get("/me", headers=ANN)

        @pytest.mark.cacheinval(leaks=False)
        def test_off(client):
            client.get("/me", headers=ANN)

        @pytest.mark.cacheinval(leaks=False)
        class TestThese:
            @pytest.mark.cacheinval(leaks=True)
            def test_on(self, client):
                client.get("/me", headers=ANN)
        """,
        "--cacheinval-leaks",
    )
    assert ran.counts == {"failed": 2, "passed": 1}, ran.text


def test_a_mark_that_names_no_search_is_an_error(run: Run) -> None:
    """A misspelt search is not passed over."""
    ran = run("leaky", "@pytest.mark.cacheinval(leak=False)\ndef test_it():\n    pass\n")
    assert ran.counts == {"error": 1}, ran.text
    assert "cacheinval(leaks=True, missing_tags=True, unpurged=True)" in ran.text
    assert "Traceback" not in ran.text
    assert "KeyError" not in ran.text


def test_a_share_of_the_requests_is_looked_at(run: Run) -> None:
    """Some are, not all; the same in each run."""
    lines = []
    for _ in range(2):
        ran = run("leaky", MANY, "--cacheinval-leaks", "--cacheinval-share", "0.25")
        assert ran.counts == {"passed": 1}, ran.text
        lines.append(next(line for line in ran.text.splitlines() if "requests checked" in line))
    checked = int(lines[0].split()[0])
    assert 1 <= checked <= 30
    assert lines[0].endswith("(a share of 0.25)")
    assert lines[1].split()[0] == lines[0].split()[0]


@pytest.mark.parametrize("share", ["0", "1.5", "-1", "much", "nan"])
def test_a_share_that_is_none_is_one_clear_line(run: Run, share: str) -> None:
    """Nothing is run."""
    ran = run("leaky", MANY, f"--cacheinval-share={share}")
    assert ran.status == 4
    assert f"cacheinval-share is a number above 0, of at most 1, not '{share}'" in ran.text
    assert "Traceback" not in ran.text


def test_what_it_cost_is_printed_of_all_workers(run: Run) -> None:
    """The processes of pytest-xdist tell their costs to the one that prints."""
    source = (
        'import pytest\n@pytest.mark.parametrize("_", range(4))\ndef test_it(client, _):\n    client.get("/number")\n'
    )
    ran = run("leaky", source, "--cacheinval-leaks", "-n", "2")
    assert ran.counts == {"passed": 4}, ran.text
    assert "4 requests checked" in ran.text
    assert "asked again in" in ran.text


def test_it_can_be_named_in_a_conftest(tmp_path: Path) -> None:
    """`pytest_plugins` in the topmost conftest is as good as `-p`."""
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["fastapi_cacheinval.pytest_plugin"]\n')
    (tmp_path / "test_it.py").write_text(
        "def test_it(http_cache, cache_clock):\n    assert http_cache.clock is cache_clock\n"
    )
    ran = start(tmp_path, "--cacheinval-leaks", plugin=False)
    assert ran.counts == {"passed": 1}, ran.text


def test_rows_are_not_looked_for_without_sqlalchemy(tmp_path: Path) -> None:
    """One line says so, and nothing is run."""
    (tmp_path / "conftest.py").write_text(
        "import fastapi_cacheinval.pytest_plugin as plugin\nplugin.find_spec = lambda name: None\n"
    )
    (tmp_path / "test_it.py").write_text("def test_it():\n    pass\n")
    ran = start(tmp_path, "--cacheinval-unpurged")
    assert ran.status == 4
    assert "in SQLAlchemy's sessions only" in ran.text


def test_the_package_needs_no_pytest() -> None:
    """Only who names the plugin imports it."""
    code = (
        "import sys, fastapi_cacheinval, fastapi_cacheinval.testing, fastapi_cacheinval.testing.searches.standing_in\n"
    )
    code += "assert 'pytest' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
