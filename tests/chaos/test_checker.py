"""The checker finds what it should find in hand-made histories, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from chaos.checker import check
from chaos.history import Commit, History, Outcome, Probe, Read, Write

BOUND = 1.0


def write(
    version: int = 1,
    *,
    at: float | None = 9.0,
    life: str = "a",
    row: int = 1,
    outcome: Outcome = Outcome.DONE,
    soft: bool = False,
) -> Write:
    """A write of row 1 through replica a, committed at 9 and answered at 10."""
    commit = None if at is None else Commit(version, at, life)
    return Write(row=row, replica=0, began=8.0, ended=10.0, outcome=outcome, commit=commit, soft=soft)


def read(
    began: float,
    seen: int,
    life: str = "a",
    *,
    filled: float | None = None,
    promised: Mapping[int, int] | None = None,
    live: bool = True,
    cdn: bool = False,
) -> Read:
    """A read that saw a version of row 1, filled by itself where nothing else is said."""
    return Read(
        replica=0,
        life=life,
        began=began,
        ended=began + 0.01,
        path="/rows/1",
        versions={1: seen},
        filled=began if filled is None else filled,
        cache_status="",
        live=live,
        promised=promised or {},
        cdn=cdn,
    )


def probe(began: float, life: str = "a", *, clean: bool = True, told: bool = False) -> Probe:
    """A look that took a tenth of a second."""
    return Probe(life=life, began=began, ended=began + 0.1, clean=clean, told=told)


def broken(*operations: Read | Write | Probe) -> list[str]:
    """The promises that a history breaks."""
    history = History()
    for operation in operations:
        match operation:
            case Read():
                history.reads.append(operation)
            case Write():
                history.writes.append(operation)
            case Probe():
                history.probes.append(operation)
    return [violation.promise for violation in check(history, BOUND).violations]


def test_the_own_write_is_seen_by_what_begins_after_its_answer() -> None:
    """On the replica that answered `done`, an older version is a violation from then on, and not before."""
    assert broken(write(), read(10.01, 0)) == ["G2"]
    assert broken(write(), read(10.0, 0), read(9.5, 0), read(10.01, 1), read(10.01, 2)) == []


def test_elsewhere_the_bound_counts_from_the_answer() -> None:
    """Another replica, and another life of the same one, may be behind for one bound and no longer."""
    assert broken(write(), read(11.0, 0, "b"), read(10.5, 0, "a2")) == []
    assert broken(write(), read(11.01, 0, "b")) == ["G3"]
    assert broken(write(), read(11.01, 0, "a2")) == ["G3"]


def test_a_purge_that_was_waited_for_binds_whoever_holds_a_lease_at_once() -> None:
    """`everywhere` leaves no bound to anybody but a replica that is out of touch, which is held to it."""
    waited = write(outcome=Outcome.EVERYWHERE)
    assert broken(waited, read(10.01, 0, "b")) == ["G3 by waiting"]
    assert broken(waited, read(10.01, 0)) == ["G2"]
    assert broken(waited, read(10.0, 0, "b")) == []
    assert broken(waited, read(11.0, 0, "b", live=False)) == []
    assert broken(waited, read(11.01, 0, "b", live=False)) == ["G3"]


def test_a_queued_write_binds_others_only_from_when_it_is_delivered() -> None:
    """That is known from a clean look at the same life that began after the answer; until then its own replica alone."""
    queued = write(outcome=Outcome.QUEUED)
    assert broken(queued, read(10.01, 0)) == ["G2"]
    assert broken(queued, read(99.0, 0, "b")) == []
    assert broken(queued, probe(9.0), probe(10.5, "b"), probe(10.6, clean=False), read(99.0, 0, "b")) == []
    assert broken(queued, probe(12.0), read(13.1, 0, "b")) == []
    assert broken(queued, probe(12.0), read(13.11, 0, "b")) == ["G3"]


@pytest.mark.parametrize("outcome", [Outcome.LATE, Outcome.UNKNOWN])
def test_a_write_of_unknown_or_late_outcome_binds_nobody_before_a_clean_look(outcome: Outcome) -> None:
    """Its commit may come after the answer, and its purge after that, or neither may ever come."""
    unknown = write(at=10.5, outcome=outcome)
    assert broken(unknown, read(99.0, 0), read(99.0, 0, "b"), probe(10.4)) == []
    assert broken(unknown, probe(10.6), read(10.6, 0)) == []
    assert broken(unknown, probe(10.6), read(10.71, 0)) == ["G2"]
    assert broken(unknown, probe(10.6), read(11.69, 0, "b")) == []
    assert broken(unknown, probe(10.6), read(11.71, 0, "b")) == ["G3"]


def test_what_was_never_committed_or_was_soft_binds_nobody() -> None:
    """A refused write changes nothing; a soft purge asks for stale answers."""
    assert broken(write(at=None), read(99.0, 0)) == []
    assert broken(write(soft=True), read(99.0, 0), read(99.0, 0, "b")) == []


def test_a_fill_that_began_before_the_commit_is_a_violation_whatever_it_read() -> None:
    """It may have read the new version by luck; it must not be handed over all the same."""
    assert broken(write(), read(10.01, 1, filled=8.9)) == ["G4"]
    assert broken(write(), read(11.01, 1, "b", filled=8.9)) == ["G4"]
    assert broken(write(), read(10.9, 1, "b", filled=8.9), read(10.0, 1, filled=8.9), read(10.01, 1, filled=9.0)) == []


def test_a_token_binds_any_replica_at_once_to_its_own_write() -> None:
    """Only to that one: for what another replica has queued it does not vouch."""
    assert broken(write(), read(10.01, 0, "b", promised={1: 1})) == ["G2 by token"]
    assert broken(write(), read(10.01, 1, "b", promised={1: 1}), read(10.01, 0, "b", promised={2: 1})) == []
    queued = write(outcome=Outcome.QUEUED, life="c")
    assert broken(queued, write(2, at=9.5, soft=True), read(10.01, 0, "b", promised={1: 2})) == []


def test_what_the_cdn_keeps_is_held_to_what_it_has_confirmed() -> None:
    """From a look at the life of the write on that finds nothing untold, and not before; to the version alone."""
    old = read(20.0, 0, cdn=True)
    assert broken(write(), old) == []
    for useless in (probe(12.0), probe(12.0, "b", told=True), probe(12.0, clean=False, told=True)):
        assert broken(write(), useless, old) == []
    assert broken(write(), probe(9.9, told=True), old) == []
    assert broken(write(), probe(12.0, told=True), read(12.1, 0, cdn=True), read(11.0, 0, cdn=True)) == []
    assert broken(write(), probe(12.0, told=True), read(12.11, 0, cdn=True), read(12.11, 1, cdn=True)) == ["CDN"]
    assert broken(write(), probe(12.0, told=True), read(20.0, 1, filled=8.9, cdn=True)) == []


def test_the_cdn_is_told_of_a_queued_purge_after_it_is_in_the_log() -> None:
    """A look that finds nothing untold before that has not heard of it."""
    queued = write(outcome=Outcome.QUEUED)
    looks = [probe(10.1, clean=False, told=True), probe(12.0), probe(13.0, told=True)]
    assert broken(queued, *looks, read(13.1, 0, cdn=True)) == []
    assert broken(queued, *looks, read(13.11, 0, cdn=True)) == ["CDN"]


def test_every_row_of_a_response_is_checked() -> None:
    """A page with two rows breaks the promise of either."""
    page = Read(
        replica=0,
        life="a",
        began=10.5,
        ended=10.6,
        path="/pairs/1/2",
        versions={1: 1, 2: 0},
        filled=10.5,
        cache_status="",
    )
    assert broken(write(row=1), write(row=2), page) == ["G2"]


def test_an_older_write_binds_although_a_newer_one_does_not() -> None:
    """The newest version binds nobody yet; what is older than the last that does is a violation, told once."""
    unknown = write(3, at=9.8, outcome=Outcome.UNKNOWN)
    assert broken(write(1), write(2, at=9.5), unknown, read(10.01, 2)) == []
    assert broken(write(1), write(2, at=9.5), unknown, read(10.01, 1)) == ["G2"]
    assert broken(write(1), write(2, at=9.5), unknown, read(10.01, 0)) == ["G2"]


def test_it_counts_what_was_put_to_the_test() -> None:
    """Reads that overlap a write or follow within two bounds are at risk; staleness is measured within the bound too."""
    history = History(
        reads=[read(7.0, 0), read(8.0, 0, "b"), read(10.4, 0, "b"), read(12.0, 1), read(12.1, 1)],
        writes=[write(), write(2, at=9.5, outcome=Outcome.UNKNOWN, row=7)],
    )
    verdict = check(history, BOUND)
    assert (verdict.at_risk, verdict.unbound, verdict.cdn) == (3, 1, 0)
    history.probes += [probe(10.5, told=True)]
    assert check(history, BOUND).cdn == 1
    # What was unknown is known from the end of the first look.
    history.probes += [probe(10.7, told=True)]
    assert check(history, BOUND).cdn == 2
    assert verdict.worst == pytest.approx(0.4)
    assert not verdict.violations
