"""`python -m fuzz [--seconds 60] [--seed N]`: random apps and random requests, with a cache and without one."""

from __future__ import annotations

import argparse
import os
import secrets
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from fuzz.raw import run
from fuzz.ways import run_ways

__all__ = ["main"]

_ROOT = Path(__file__).parents[1]
# What a second of the budget is worth to each suite, on two cores.
_APPS_A_SECOND = 6
_SEQUENCES_A_SECOND = 4
_SHARE = 0.12
_SUITES = (
    ("random apps and callers", "tests/routes/test_random_apps.py", "SHARING_EXAMPLES", _APPS_A_SECOND),
    ("request sequences", "tests/fuzz/test_fuzz.py", "CACHEINVAL_FUZZ_EXAMPLES", _SEQUENCES_A_SECOND),
)


def _suite(name: str, path: str, variable: str, most: int) -> bool:
    """Run one of the suites with so many examples, other ones at each run; whether it held."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--timeout=0", path]
    command += ["--hypothesis-profile=explore"]
    done = subprocess.run(
        command, cwd=_ROOT, env={**os.environ, variable: str(most)}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        print(done.stdout[-8_000:])
    print(f"| {name} | {most:,} | | {'a difference, see above' if done.returncode else 0} |", flush=True)
    return not done.returncode


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table of what was tried; 1 where anything differed."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=main.__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="about how long in all (60)")
    parser.add_argument("--seed", default=secrets.token_hex(3), help="of the raw requests; chosen and printed")
    parser.add_argument("--raw", action="store_true", help="only the raw requests")
    chosen = parser.parse_args(arguments)
    print(f"seed {chosen.seed}\n\n| what | tried | hits | differences |\n|---|---|---|---|", flush=True)
    held = True
    share = chosen.seconds / 6 if chosen.raw else chosen.seconds * _SHARE
    if not chosen.raw:
        for name, path, variable, rate in _SUITES:
            held &= _suite(name, path, variable, max(1, round(chosen.seconds * _SHARE * rate)))
    for mode in ("policy", "headers"):
        for server in ("httptools", "h11"):
            tried = run(mode, server, chosen.seed, seconds=share)
            print(tried.row(), flush=True)
            for difference in tried.found:
                print(difference)
            held &= not tried.found
    for mode in ("bare", "policy"):
        tried = run_ways(mode, chosen.seed, seconds=share)
        print(tried.row(), flush=True)
        for difference in tried.found:
            print(difference)
        held &= not tried.found
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
