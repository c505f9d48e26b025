"""Tables in Markdown, each with how it was measured, and what they were measured on."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

__all__ = ["Options", "Table", "machine", "quantile", "reached"]

_PACKAGES = ("fastapi-cacheinval", "fastapi", "starlette", "uvicorn", "uvloop", "httptools", "litestar")


@dataclass(frozen=True, slots=True)
class Options:
    """How much is measured: `quick` only shows that it runs; `wrk` says whether wrk may be used and installed.

    `against` is the commit that the guard compares with, the last tag without one.
    """

    quick: bool = False
    wrk: bool = True
    against: str | None = None

    def pick(self, full: int, quick: int) -> int:
        """A size for the full run and one for the quick run."""
        return quick if self.quick else full


@dataclass(frozen=True, slots=True)
class Table:
    """One table: `how` it was measured in a sentence or two, its columns and its rows."""

    title: str
    how: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """The table as Markdown; all columns but the first to the right."""
        lines = [f"### {self.title}", "", self.how, ""]
        lines.append("| " + " | ".join(self.columns) + " |")
        lines.append("| --- |" + " ---: |" * (len(self.columns) - 1))
        lines += ["| " + " | ".join(row) + " |" for row in self.rows]
        return "\n".join(lines) + "\n"


def quantile(values: Sequence[float], share: float) -> float:
    """The value that a share of all values stay below: with 0.5 the median, with 0.99 the 99th percentile."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def reached(ok: bool) -> str:  # noqa: FBT001 - it is the question itself
    """The word for a target's column."""
    return "yes" if ok else "**no**"


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return None


def machine() -> str:
    """The machine, the interpreter, the packages and the load, in one paragraph."""
    packages = [text for text in map(_version, _PACKAGES) if text]
    load = ", ".join(f"{value:.2f}" for value in os.getloadavg())
    return (
        f"{_processor()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}; "
        f"{platform.python_implementation()} {platform.python_version()}; {', '.join(packages)}; "
        f"wrk {'installed' if shutil.which('wrk') else 'not installed'}; "
        f"load averages at the start (1, 5 and 15 minutes): {load}."
    )
