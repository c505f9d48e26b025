"""What a run of the suite comes to, as Markdown."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from bench.conformance.reasons import REASONS

__all__ = ["Report"]

_KINDS = ("required", "optimal", "check")


class Report:
    """The results of one run over the tests of one edition.

    A test that depends on one that failed says nothing, as the suite itself counts it: it is left
    out of the failures and listed apart.
    """

    def __init__(self, app: str, tests: list[dict[str, Any]], results: dict[str, Any]) -> None:
        self.app = app
        self.tests = tests
        self.results = results
        self._by_id = {test["id"]: test for test in tests}

    def _state(self, name: str) -> str:
        test = self._by_id.get(name)
        if test is not None and any(self._state(other) != "passed" for other in test["depends_on"]):
            return "depends"
        return "passed" if self.results.get(name) is True else "failed"

    def count(self, state: str, tests: Iterable[dict[str, Any]]) -> int:
        """How many of some tests came to a state."""
        return sum(self._state(test["id"]) == state for test in tests)

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        """The tests of one kind."""
        return [test for test in self.tests if test["kind"] == kind]

    @property
    def unexplained(self) -> list[str]:
        """The failing required and optimal tests without a reason."""
        return [name for name in self._failing() if name not in REASONS]

    def _failing(self) -> list[str]:
        kept = [test["id"] for test in self.tests if test["kind"] != "check"]
        return [name for name in kept if self._state(name) == "failed"]

    @staticmethod
    def by_kind(reports: list[Report]) -> str:
        """Passes of each kind, a column for each run."""
        lines = ["| kind | " + " | ".join(each.app for each in reports) + " |", "|---|" + "---|" * len(reports)]
        for kind in _KINDS:
            cells: list[str] = []
            for each in reports:
                tests = each.of_kind(kind)
                failed, depends = each.count("failed", tests), each.count("depends", tests)
                cells.append(
                    f"{each.count('passed', tests)} of {len(tests)} ({failed} failed, {depends} not applicable)"
                )
            lines.append(f"| {kind} | " + " | ".join(cells) + " |")
        return "\n".join([*lines, ""])

    @staticmethod
    def by_group(reports: list[Report]) -> str:
        """Passes of each group, a column for each run."""
        lines = ["| group | " + " | ".join(each.app for each in reports) + " |", "|---|" + "---|" * len(reports)]
        for group in dict.fromkeys(test["group"] for test in reports[0].tests):
            cells: list[str] = []
            for each in reports:
                tests = [test for test in each.tests if test["group"] == group]
                cells.append(f"{each.count('passed', tests)} of {len(tests)}")
            lines.append(f"| {group} | " + " | ".join(cells) + " |")
        return "\n".join([*lines, ""])

    def failures(self) -> str:
        """Every failing required or optimal test with what was seen and why, then those that say nothing."""
        lines = [f"{self.app}: failing required and optimal tests", ""]
        for name in self._failing():
            seen = self.results.get(name)
            said = ": ".join(seen) if isinstance(seen, list) else str(seen)
            lines.append(f"- {self._by_id[name]['kind']} `{name}` ({said})\n  {REASONS.get(name, 'no reason given')}")
        silent = [test["id"] for test in self.tests if test["kind"] != "check" and self._state(test["id"]) == "depends"]
        if silent:
            lines += ["", "Not applicable, because a test that they depend on failed:", ""]
            lines += [f"- {self._by_id[name]['kind']} `{name}`\n  {REASONS.get(name, '')}".rstrip() for name in silent]
        return "\n".join([*lines, ""])
