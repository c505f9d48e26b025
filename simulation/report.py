"""What is printed of a run, and what is kept of the long ones."""

from __future__ import annotations

import hashlib
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from simulation.plan import BOUND
from simulation.run import SECONDS, Totals
from simulation.world import World

__all__ = ["FAULTS", "LEAST_HITS", "LOG", "commit", "least", "missing", "next_seed", "record", "story", "tables"]

LOG = Path(__file__).with_name("LOG.md")

LEAST_HITS = 0.5

FAULTS = (
    "answers not confirmed",
    "calls refused by the server",
    "crashes",
    "failovers",
    "fills failed",
    "fills overtaken",
    "full servers",
    "keys evicted",
    "late purges",
    "late replies",
    "messages doubled",
    "messages late",
    "messages lost",
    "messages out of order",
    "own lines read later",
    "partitions",
    "pauses",
    "purges of everything",
    "purges of several lines",
    "purges queued",
    "relapses",
    "replies lost",
    "replies with more to read",
    "requests doubled",
    "requests late",
    "requests lost",
    "resets",
    "server clocks set",
    "server restarts, empty",
    "server restarts, rolled back",
    "server restarts, whole",
    "soft purges",
    "split brains",
    "stalled servers",
    "subscriptions broken",
    "subscriptions silently dead",
    "waiters refused",
)

_COLUMNS = ("date", "commit", "rules", "seeds", "hours", "reads", "hits", "reads/s", "worst", "violations")
_HEAD = f"""\
# Long runs of the simulation

`make simulate ARGS="--seconds 600 --record"` adds a line. `reads` are those that could have been stale, `worst` is
the longest time from a purge to a read without it where the bound is {BOUND:g} s, `rules` a digest of the state
machine, its queue and the script: what changes them begins a new count. `+` is a commit with changes on it.
"""
_PACKAGE = Path(__file__).parent.parent / "fastapi_cacheinval"
_RULES = (
    "core/confirming.py",
    "core/replica.py",
    "core/fences.py",
    "core/backlog.py",
    "core/pieces.py",
    "bus/replication.py",
    "bus/script.py",
    "bus/looks.py",
)


def least(seeds: int) -> int:
    """How often each kind of fault must have occurred in so many seeds."""
    return max(1, seeds // 20)


def missing(totals: Totals) -> list[str]:
    """What did not occur often enough for the run to prove anything."""
    wanted = least(totals.seeds)
    rare = [f"{kind}: {totals.counts[kind]} of {wanted}" for kind in FAULTS if totals.counts[kind] < wanted]
    if totals.hits < LEAST_HITS * totals.reads:
        rare.append(f"hits: {totals.hits / max(1, totals.reads):.0%} of {LEAST_HITS:.0%}")
    return rare


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(columns) + " |", "| --- |" + " ---: |" * (len(columns) - 1)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def tables(totals: Totals, elapsed: float) -> str:
    """The whole report in Markdown."""
    reads, violations = totals.reads, len(totals.violations)
    share = totals.hits / max(1, reads)
    rows = [
        ("seeds", f"{totals.seeds:,}"),
        ("simulated hours", f"{totals.seeds * SECONDS / 3600:,.1f}"),
        ("all reads", f"{totals.served:,}"),
        ("reads that could have been stale", f"{reads:,}"),
        (f"of them answered from what is kept (at least {LEAST_HITS:.0%})", f"{share:.1%}"),
        ("such reads per second", f"{reads / max(elapsed, 1e-9):,.0f}"),
        ("handed over after a purge elsewhere that had not been heard of", f"{totals.stale:,}"),
        (f"worst staleness, of a bound of {BOUND:g} s", f"{totals.worst:.3f} s"),
        ("the same as a share of what is allowed, other replicas kept longer too", f"{totals.worst_share:.1%}"),
        ("violations", str(violations)),
        ("what follows from none, with 95 % confidence (rule of three)", _confidence(reads, violations)),
    ]
    wanted = least(totals.seeds)
    faults = [(kind, f"{totals.counts[kind]:,}") for kind in FAULTS]
    others = [(kind, f"{count:,}") for kind, count in sorted(totals.counts.items()) if kind not in FAULTS]
    return "\n".join(
        (
            _table(("what", "figure"), rows),
            _table((f"fault (each at least {wanted} times)", "times"), faults),
            _table(("what else happened", "times"), others),
        )
    )


def _confidence(reads: int, violations: int) -> str:
    return "nothing" if violations or reads < 3 else f"fewer than 1 in {reads // 3:,}"


def story(world: World, most: int) -> str:
    """The last lines of a trace; of what was handed over only that of the key that must not have been."""
    violation = world.truth.violation
    key = None if violation is None else violation.key
    lines = [told.text for told in world.trace or () if told.key is None or key is None or told.key == key]
    if violation is not None:
        lines.append(f"{violation.at:10.6f} {violation.promise}: {violation.text}")
    return "\n".join(lines[-most:])


# -- the log of long runs -------------------------------------------------------------------------


def _rows() -> list[list[str]]:
    if not LOG.exists():
        return []
    lines = LOG.read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| 2")]
    return [row for row in rows if len(row) == len(_COLUMNS)]


def next_seed() -> int:
    """The first seed that no run in the log has used."""
    return max((int(row[3].split("–")[1].replace(",", "")) + 1 for row in _rows()), default=0)


def _rules() -> str:
    return hashlib.sha256(b"".join((_PACKAGE / name).read_bytes() for name in _RULES)).hexdigest()[:8]


def commit() -> str:
    """The commit that runs, with a `+` where something is changed on it."""

    def git(*arguments: str) -> str:
        command = ("git", "-C", str(LOG.parent), *arguments)
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    return git("rev-parse", "--short", "HEAD") + (
        "+" if git("status", "--porcelain", "--", "../fastapi_cacheinval", ".") else ""
    )


def record(totals: Totals, first: int, elapsed: float, commit: str) -> None:
    """Add a run of a commit to the log."""
    row = [
        time.strftime("%Y-%m-%d", time.gmtime()),
        commit,
        _rules(),
        f"{first:,}–{first + totals.seeds - 1:,}",
        f"{totals.seeds * SECONDS / 3600:,.1f}",
        f"{totals.reads:,}",
        f"{totals.hits / max(1, totals.reads):.1%}",
        f"{totals.reads / elapsed:,.0f}",
        f"{totals.worst:.3f} s",
        str(len(totals.violations)),
    ]
    rows = [*_rows(), row]
    same = [each for each in rows if each[2] == row[2]]
    reads, violations = _sum(same, 5), _sum(same, 9)
    proved = f"{reads:,} reads, {violations} violations; {_confidence(reads, violations)} (95 %)"
    text = f"{_HEAD}\n{_table(_COLUMNS, rows)}\nWith the rules of the last line: {proved}.\n"
    LOG.write_text(text, encoding="utf-8")


def _sum(rows: Sequence[Sequence[str]], column: int) -> int:
    return sum(int(row[column].replace(",", "")) for row in rows)
