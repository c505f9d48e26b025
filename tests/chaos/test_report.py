"""What a run prints."""

from __future__ import annotations

from chaos.checker import check
from chaos.history import Commit, Fault, History, Outcome, Probe, Read, Write
from chaos.report import problems, stories, table
from chaos.run import Plan, Result


def result(*, reads: list[Read], faults: list[Fault], other: bool = False, probes: list[Probe] | None = None) -> Result:
    """A run that began at 100, with one write of row 1 through replica a, acknowledged at 110."""
    write = Write(
        row=1, replica=0, began=109.0, ended=110.0, outcome=Outcome.DONE, commit=Commit(7, 109.5, "a"), other=other
    )
    history = History(reads=reads, writes=[write], probes=probes or [], faults=faults, unanswered={"503": 2, "500": 1})
    misdeeds = {"source, unreadable": 3, "CDN, refused": 4}
    return Result(Plan(seed="9"), history, check(history, 1.0), began=100.0, seconds=20.0, misdeeds=misdeeds)


def read(began: float, seen: int, cache_status: str, *, cdn: bool = False) -> Read:
    """A read of row 1 from replica a."""
    return Read(
        replica=0,
        life="a",
        began=began,
        ended=began + 0.01,
        path="/rows/1",
        versions={1: seen},
        filled=began - 2,
        cache_status=cache_status,
        cdn=cdn,
    )


FLUSH = Fault(kind="FLUSHALL", target="valkey", began=109.2, ended=109.3)


def test_a_violation_is_told_with_what_happened_around_it() -> None:
    """The write, the reads of its row and the faults stand in the order of time, in seconds of the run."""
    told = stories(result(reads=[read(110.5, 6, "cacheinval; hit; ttl=3")], faults=[FLUSH]))
    assert told.splitlines() == [
        "G2: a read of row 1 that began 0.500 s too late to see that",
        "      9.200  fault until 9.300: FLUSHALL, valkey",
        "     10.000  write since 9.000 through replica 0: done, version 7 committed at 9.500 by a",
        "     10.510  read since 10.500 from a: version 6, filled since 8.500, /rows/1, cacheinval; hit; ttl=3",
    ]


def test_the_table_counts_operations_faults_and_violations() -> None:
    """Each row is a name and a figure."""
    lines = table(
        result(reads=[read(110.5, 6, "cacheinval; hit; ttl=3"), read(109.0, 6, "")], faults=[FLUSH])
    ).splitlines()
    rows = dict(line.strip("| ").split(" | ") for line in lines[4:])
    assert rows["reads"] == "2"
    assert rows["answered with what was stored"] == "50 %"
    assert rows["reads without an answer"] == "1 500, 2 503"
    assert rows["reads that the cache failed"] == "1"
    assert rows["fault: FLUSHALL"] == "1"
    assert (rows["fault: source, unreadable"], rows["fault: CDN, refused"]) == ("3", "4")
    assert rows["**violations**"] == "**1 G2**"


def test_writes_of_another_program_and_reads_through_the_cdn_are_told_as_such() -> None:
    """In the table, and in a story."""
    probes = [Probe(life="a", began=110.1, ended=110.2, clean=True, told=True)]
    run = result(reads=[read(110.5, 6, "", cdn=True)], faults=[FLUSH], other=True, probes=probes)
    rows = dict(line.strip("| ").split(" | ") for line in table(run).splitlines()[4:])
    assert rows["answered with what the CDN kept"] == "1"
    assert rows["of another program, and of these purged by their events"] == "1, 1"
    assert rows["hard writes that bound the CDN"] == "1"
    assert rows["**violations**"] == "**1 CDN**"
    told = stories(run)
    assert "write since 9.000 by another program: done" in told
    assert "read through the CDN since 10.500 from a" in told


def test_a_run_without_faults_hits_or_risk_proves_nothing() -> None:
    """Such a run says that it is void."""
    hit = read(110.5, 7, "cacheinval; hit; ttl=3")
    kept = read(110.6, 7, "", cdn=True)
    told = [Probe(life="a", began=110.1, ended=110.2, clean=True, told=True)]
    assert result(reads=[hit], faults=[]).void == "no fault was made"
    assert result(reads=[read(110.5, 7, "cacheinval; fwd=uri-miss")], faults=[FLUSH]).void
    assert result(reads=[hit], faults=[FLUSH], other=True, probes=told).void
    assert result(reads=[hit, kept], faults=[FLUSH], probes=told).void
    assert result(reads=[hit, kept], faults=[FLUSH], other=True).void
    assert not result(reads=[hit, kept], faults=[FLUSH], other=True, probes=told).void


def test_a_run_holds_or_says_why_it_does_not() -> None:
    """A violation is told as a story, a void run with its reason; a read that the cache failed is enough, too."""
    kept = read(110.6, 7, "", cdn=True)
    told = [Probe(life="a", began=110.1, ended=110.2, clean=True, told=True)]
    hit = read(111.6, 7, "cacheinval; hit; ttl=3")
    run = result(reads=[hit, kept], faults=[FLUSH], other=True, probes=told)
    assert problems(run) == ""
    assert run.failed
    assert not run.held
    run.history.unanswered.clear()
    assert run.held
    void = result(reads=[hit], faults=[])
    assert problems(void) == "void: no fault was made\n"
    assert not void.held
    broken = result(reads=[read(110.5, 6, "cacheinval; hit; ttl=3"), kept], faults=[FLUSH], other=True, probes=told)
    assert problems(broken) == f"{stories(broken)}\n"
    assert not broken.held
