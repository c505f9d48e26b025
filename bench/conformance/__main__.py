"""`python -m bench.conformance`: run the suite, print what passes, explain what does not.

Exits with 1 where a required or optimal test fails for which `reasons` has no explanation.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from bench.conformance import processes
from bench.conformance.report import Report


def main() -> int:
    """One run with each kind of server that was asked for."""
    parser = argparse.ArgumentParser(prog="python -m bench.conformance", description=__doc__)
    parser.add_argument(
        "--edition", type=Path, help="a folder with another edition of the suite, its packages installed"
    )
    parser.add_argument(
        "--home", type=Path, default=Path(".venv/conformance"), help="where the npm package is installed"
    )
    parser.add_argument(
        "--app", action="append", choices=["origin", "bare", "cached", "optional"], help="default: cached, optional"
    )
    parser.add_argument("--json", type=Path, help="also write what each test came to here")
    asked = parser.parse_args()
    home = asked.home.resolve()
    folder = asked.edition.resolve() if asked.edition else processes.install(home)
    home.mkdir(parents=True, exist_ok=True)
    tests = processes.tests_of(folder)
    reports: list[Report] = []
    for app in asked.app or ["cached", "optional"]:
        with processes.origin(folder, home) as origin, processes.server(app, origin) as port:
            reports.append(Report(app, tests, processes.results(folder, home, port)))
    if asked.json:
        asked.json.write_text(json.dumps({each.app: each.results for each in reports}, indent=1), encoding="utf-8")
    print(Report.by_kind(reports))
    print(Report.by_group(reports))
    for report in reports:
        print(report.failures())
    unexplained = [name for report in reports if report.app == "cached" for name in report.unexplained]
    if unexplained:
        print(f"Without a reason in bench/conformance/reasons.py: {', '.join(unexplained)}")
    return 1 if unexplained else 0


if __name__ == "__main__":
    sys.exit(main())
