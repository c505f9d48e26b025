"""The lowest versions that are tested are worked out from pyproject.toml."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def floors(tmp_path: Path, dependencies: str) -> subprocess.CompletedProcess[str]:
    """Run the script on a project with these dependencies."""
    pyproject = tmp_path / "pyproject.toml"
    pyproject.write_text(f"[project]\ndependencies = {dependencies}\n")
    return subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "floors.py"), str(pyproject)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_lower_bound_of_each_dependency_becomes_a_pin(tmp_path: Path) -> None:
    """Upper bounds, exclusions and extras do not disturb the floor."""
    result = floors(tmp_path, '["fastapi>=0.137.2,<2", "Redis[hiredis]!=5.1,>=5.0.1", "starlette~=0.46.0"]')
    assert result.stdout.split() == ["fastapi==0.137.2", "Redis==5.0.1", "starlette==0.46.0"]


def test_extras_have_floors_as_well(tmp_path: Path) -> None:
    """What an integration needs is tested with its lowest version too."""
    extras = '\n[project.optional-dependencies]\ncdn = ["httpx>=0.28"]\nsqlalchemy = ["sqlalchemy[asyncio]>=2.0.40"]'
    assert floors(tmp_path, '["redis>=5.0.1"]' + extras).stdout.split() == [
        "redis==5.0.1",
        "httpx==0.28",
        "sqlalchemy==2.0.40",
    ]


def test_a_tool_released_in_step_with_a_dependency_follows_it(tmp_path: Path) -> None:
    """The telemetry SDK pins its API, so the floor of the one is that of the other."""
    result = floors(tmp_path, '["opentelemetry-api>=1.24.0"]')
    followers = ("sdk", "exporter-otlp-proto-http")
    assert result.stdout.split() == [f"opentelemetry-{name}==1.24.0" for name in ("api", *followers)]


def test_a_dependency_without_a_floor_is_an_error(tmp_path: Path) -> None:
    """Nothing is left to chance: the script names the dependency and fails."""
    result = floors(tmp_path, '["fastapi"]')
    assert result.returncode != 0
    assert "'fastapi' in pyproject.toml has no lower bound" in result.stderr
