"""Compare the processor time of the working tree with that of the last tag, or of the commit of `--against`.

Each tree runs in a process of its own, and the two take turns batch by batch. Other load on the machine therefore
affects both. The figure is the median of the ratios of neighbouring batches.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.guard_worker import CASES
from bench.report import Options, Table

__all__ = ["SLOWER", "Compared", "compare", "main"]

ROOT = Path(__file__).parent.parent
SLOWER = 1.1
"""A case with a higher ratio counts as slower."""
_ROUNDS = 60


@dataclass(frozen=True, slots=True)
class Compared:
    """One case: microseconds per request before and now, and the median ratio of neighbouring batches."""

    case: str
    before: float
    now: float
    ratio: float

    @property
    def slower(self) -> bool:
        """Whether it is slower than noise explains."""
        return self.ratio > SLOWER


@contextlib.contextmanager
def _worker(tree: Path) -> Iterator[subprocess.Popen[str]]:
    """A worker on the package of a tree; `bench` comes from this tree, as older ones may lack it."""
    command = [sys.executable, "-m", "bench.guard_worker"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (tree, ROOT))), "PYTHONSAFEPATH": "1"}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment, cwd=tree) as worker:
        try:
            if worker.stdout is None or Path(worker.stdout.readline().strip()) != tree.resolve():
                raise RuntimeError(f"the package of {tree} does not run")
            yield worker
        finally:
            worker.kill()


def _batch(worker: subprocess.Popen[str], case: str) -> float:
    if worker.stdin is None or worker.stdout is None:
        raise RuntimeError("the worker has no pipes")
    worker.stdin.write(f"{case}\n")
    worker.stdin.flush()
    return float(worker.stdout.readline())


def compare(before: Path, now: Path, rounds: int = _ROUNDS, cases: Iterable[str] = CASES) -> list[Compared]:
    """Compare the packages of two trees."""
    taken: dict[str, list[tuple[float, float]]] = {case: [] for case in cases}
    with _worker(before.resolve()) as old, _worker(now.resolve()) as new:
        for number in range(rounds):
            for case, pairs in taken.items():
                # Each tree goes first in half of the rounds.
                if number % 2:
                    pairs.append((_batch(old, case), _batch(new, case)))
                else:
                    second = _batch(new, case)
                    pairs.append((_batch(old, case), second))
    return [
        Compared(
            case,
            median(old for old, _ in pairs),
            median(new for _, new in pairs),
            median(new / old for old, new in pairs),
        )
        for case, pairs in taken.items()
    ]


def _last_tag() -> str:
    found = subprocess.run(
        ["git", "describe", "--tags", "--abbrev=0"],  # noqa: S607
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if found.returncode:
        raise SystemExit("No tag was found. Name the commit to compare with, as in ARGS='guard --against main'.")
    return found.stdout.strip()


def _unpack(commit: str, folder: Path) -> None:
    archive = subprocess.run(
        ["git", "archive", commit, "fastapi_cacheinval"],  # noqa: S607
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    if archive.returncode:
        raise SystemExit(f"git cannot give the package of {commit}: {archive.stderr.decode(errors='replace').strip()}")
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)  # noqa: S607


def main(options: Options) -> int:
    """Print the table; 1 if a case is slower."""
    commit = options.against or _last_tag()
    with tempfile.TemporaryDirectory(prefix="guard-") as folder:
        _unpack(commit, Path(folder))
        found = compare(Path(folder), ROOT, options.pick(_ROUNDS, 4))
    rows = [
        (each.case, f"{each.before:.1f}", f"{each.now:.1f}", f"{each.ratio:.2f}", "**slower**" if each.slower else "")
        for each in found
    ]
    table = Table(
        f"The working tree beside {commit}",
        "Processor time of batches of 100 requests in process; the two trees take turns. The ratio is the median of "
        f"the ratios of neighbouring batches. A case above {SLOWER} counts as slower.",
        ("case", "µs before", "µs now", "ratio", ""),
        rows,
    )
    print(table.markdown(), flush=True)
    return 0 if options.quick or not any(each.slower for each in found) else 1
