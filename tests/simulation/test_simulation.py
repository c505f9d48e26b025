"""The real state machines under faults: no promise is broken, and the check sees where one is."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from simulation import report
from simulation.__main__ import main
from simulation.ablations import ABLATIONS, Ablation
from simulation.plan import BOUND
from simulation.report import FAULTS, least, missing, next_seed, story
from simulation.run import caught, run, run_all
from simulation.world import Told

_SEEDS = 80


# It computes and waits for nothing: on a machine with other work it takes its time.
@pytest.mark.timeout(240)
def test_no_schedule_of_faults_breaks_a_promise(capsys: pytest.CaptureFixture[str]) -> None:
    """Of a million reads that could be stale none is, with at least 4 faults of each kind; most of them are hits."""
    totals = run_all(range(_SEEDS))
    with capsys.disabled():
        share = totals.hits / totals.reads
        print(f"\n{totals.reads} reads that could be stale in {_SEEDS} seeds, {share:.0%} hits")  # noqa: T201
    assert totals.violations == []
    assert missing(totals) == []
    assert min(totals.counts[kind] for kind in FAULTS) >= least(_SEEDS) == 4
    assert totals.reads > 1_000_000
    # It goes to the edge, and not over it.
    assert 0.9 * BOUND < totals.worst < BOUND


@pytest.mark.parametrize("ablation", ABLATIONS, ids=lambda ablation: ablation.name)
def test_each_rule_is_needed_and_the_check_sees_that_it_is_gone(ablation: Ablation) -> None:
    """Without this one rule a promise is broken within 40 seeds."""
    assert caught(ablation, 40) is not None


_NO_FAULTS = (
    *("message_loss", "command_loss", "doubled", "slow", "pause_rate", "cut_rate", "deaf_rate", "crash_rate"),
    *("server_rate", "evict_rate", "full_rate", "stall_rate", "clock_jumps", "stale_when_disconnected", "late_replies"),
)


def _calm(processes: int, seconds: float) -> Counter[str]:
    """What happens in a world without faults, with four writes a second, half of which wait for every replica."""
    rates = {"mutation_rate": 4.0, "purge_waits": 0.5, "read_rate": 1.0, "most_lines": 1000, "base_delay": 0.001}
    harsh = {**dict.fromkeys(_NO_FAULTS, 0.0), **rates, "processes": processes, "seconds": seconds}
    world = run(1, Ablation("calm", harsh=harsh))
    assert world.truth.violation is None
    return Counter(world.counts)


@pytest.mark.parametrize("processes", [5, 25, 75])
def test_the_servers_load_grows_with_the_replicas_and_not_faster(processes: int) -> None:
    """Each asks every 0.67 to 0.9 s, and once for a line that is waited for; a message ends nearly every wait."""
    starting, all_of_it = 5.0, 40.0
    counts = _calm(processes, all_of_it)
    counts.subtract(_calm(processes, starting))
    told, looked = counts["words of every replica"], counts["waits for every replica"]
    assert told > 10 * max(1, looked)
    beats = counts["calls of the script"] - counts["lines written"] - (told + looked) * processes
    assert 0.7 < beats / processes / (all_of_it - starting) < 1.5


def test_a_seed_tells_the_same_story_each_time() -> None:
    """Nothing but the seed decides: the same events, and the same count of everything."""
    first: list[Told] = []
    second: list[Told] = []
    one, two = run(3, trace=first), run(3, trace=second)
    assert first == second
    assert (one.reads, one.hits, one.counts) == (two.reads, two.hits, two.counts)


def test_the_story_of_a_failing_seed_ends_with_what_was_broken_and_tells_how_it_came_to_it() -> None:
    """Who wrote the line, who heard of it, what of this key was handed over, and why it must not have been."""
    ablation = next(each for each in ABLATIONS if each.name == "gaps do not matter")
    trace: list[Told] = []
    world = run(0, ablation, trace)
    violation = world.truth.violation
    assert violation is not None
    lines = story(world, 500).splitlines()
    assert lines[-1].split(maxsplit=2)[1] == f"{violation.promise}:"
    assert f"key {violation.key} " in lines[-1]
    assert any(" commits " in line for line in lines)
    assert any(" writes line " in line for line in lines)
    assert any(" heard line " in line for line in lines)
    handed_over = [line for line in lines[:-1] if " serves " in line or " hands over " in line]
    assert handed_over
    assert all(f" key {violation.key} " in line for line in handed_over)


def test_the_command_runs_seeds_prints_what_it_met_and_keeps_a_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A second run begins with the first seed that the log does not have."""
    monkeypatch.setattr(report, "LOG", tmp_path / "LOG.md")
    monkeypatch.setattr("simulation.__main__.commit", lambda: "abc1234")
    assert next_seed() == 0
    assert main(["--seeds", "3", "--processes", "1", "--record"]) == 0
    printed = capsys.readouterr().out
    assert "| violations | 0 |" in printed
    assert "| split brains |" in printed
    assert next_seed() == 3
    assert main(["--seeds", "2", "--processes", "1", "--record"]) == 0
    assert next_seed() == 5
    text = (tmp_path / "LOG.md").read_text(encoding="utf-8")
    assert "| abc1234 |" in text
    assert "| 0–2 |" in text
    assert "| 3–4 |" in text
    assert " 0 violations; fewer than 1 in " in text


def test_the_command_tells_the_story_of_a_seed(capsys: pytest.CaptureFixture[str]) -> None:
    """It fails where the seed does."""
    assert main(["--replay", "0", "--trace", "5"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 5
    assert main(["--replay", "0", "--ablation", "no fence"]) == 1
    assert "was handed over: " in capsys.readouterr().out
