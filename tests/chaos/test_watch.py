"""How soon the replicas of a run are well again, from the looks at them."""

from __future__ import annotations

from pathlib import Path

from chaos.history import Fault
from chaos.watch import LOGGED, Sample, _logged, recoveries


def looks(replica: int, *well: bool) -> list[Sample]:
    """One a second, from 0."""
    return [Sample(float(at), replica, well=each) for at, each in enumerate(well)]


def fault(kind: str, began: float, ended: float) -> Fault:
    """Something that was done in between."""
    return Fault(kind=kind, target="valkey", began=began, ended=ended)


def test_all_replicas_have_to_be_found_well_after_the_end() -> None:
    """The last of them decides; a look from before the end says nothing."""
    samples = [*looks(0, True, True, False, True, True, True), *looks(1, True, False, False, False, False, True)]
    assert recoveries(samples, [fault("gone", 0.5, 1.5)], 2) == {"gone": [3.5]}


def test_a_fault_that_another_one_overlaps_tells_nothing() -> None:
    """Neither does one after which a replica was never well."""
    samples = looks(0, False, False, True, False, True, False)
    assert recoveries(samples, [fault("a", 0.0, 0.5), fault("b", 1.0, 3.0)], 1) == {"b": [1.0]}
    assert recoveries(samples, [fault("c", 4.0, 4.5)], 1) == {}


def test_lines_of_the_package_are_counted_by_level(tmp_path: Path) -> None:
    """In the files of all replicas; what else is there does not count."""
    for name, text in {
        "a": f"{LOGGED}WARNING:out of touch\nINFO: GET\n{LOGGED}ERROR:stopped\n",
        "b": f"{LOGGED}WARNING:back\n",
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "uvicorn-0.out").write_text(text, encoding="utf-8")
    assert _logged(tmp_path) == {"WARNING": 2, "ERROR": 1}
