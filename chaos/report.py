"""What came of a run, for people: one table, and the story around each violation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from chaos.checker import Violation
from chaos.history import Outcome, Read, Write
from chaos.run import Result

__all__ = ["problems", "stories", "table"]

_MOST_STORIES = 5
# How many events before and after the write are told, for the row of the violation.
_MOST_EVENTS = 15


def _rows(result: Result) -> Iterator[tuple[str, str]]:
    plan, history, verdict = result.plan, result.history, result.verdict
    reads, writes = history.reads, history.writes
    yield "seconds", f"{result.seconds:.1f}"
    yield "reads", f"{len(reads):,}"
    yield "reads that could have been stale", f"{verdict.at_risk:,}"
    yield "answered with what was stored", f"{100 * result.hits / max(1, len(reads)):.0f} %"
    yield "answered with what the CDN kept", f"{result.kept:,}"
    outcomes = Counter(write.outcome for write in writes)
    told = ", ".join(f"{outcomes[outcome]:,} {outcome.value}" for outcome in Outcome)
    yield "writes", f"{len(writes):,}: {told}"
    others = sum(write.other for write in writes)
    yield "of another program, and of these purged by their events", f"{others:,}, {result.events:,}"
    yield "hard writes that bound nobody elsewhere", f"{verdict.unbound:,}"
    yield "hard writes that bound the CDN", f"{verdict.cdn:,}"
    missed = ", ".join(f"{count:,} {what}" for what, count in sorted(history.unanswered.items()))
    yield "reads without an answer", missed or "0"
    yield "reads that the cache failed", f"{result.failed:,}"
    for kind, count in sorted(Counter(fault.kind for fault in history.faults).items()):
        yield f"fault: {kind}", str(count)
    for kind, count in sorted(result.misdeeds.items()):
        yield f"fault: {kind}", f"{count:,}"
    yield "worst staleness on another replica", f"{verdict.worst:.2f} s of {plan.bound:g} s"
    kinds = Counter(violation.promise for violation in verdict.violations)
    told = ", ".join(f"{count:,} {promise}" for promise, count in sorted(kinds.items()))
    yield "**violations**", f"**{told or '0'}**"


def table(result: Result) -> str:
    """A Markdown table."""
    plan = result.plan
    title = f"### {plan.build} under {plan.server}, {plan.topology}, {plan.count} replicas, seed {plan.seed}"
    rows = [f"| {name} | {text} |" for name, text in _rows(result)]
    return "\n".join([title, "", "| | |", "| --- | ---: |", *rows, ""])


def problems(result: Result) -> str:
    """The stories of violations, and the reason why the run is void, a line each; empty if there are none."""
    told = [stories(result)] if result.verdict.violations else []
    if result.void:
        told.append(f"void: {result.void}")
    return "".join(f"{each}\n" for each in told)


def stories(result: Result) -> str:
    """The events around the first violations, in the order of their ends; times are seconds of the run."""
    violations = sorted(result.verdict.violations, key=lambda violation: violation.read.began)
    told = [_story(result, violation) for violation in violations[:_MOST_STORIES]]
    if len(violations) > len(told):
        told.append(f"... and {len(violations) - len(told):,} more")
    return "\n\n".join(told)


def _story(result: Result, violation: Violation) -> str:
    write, read = violation.write, violation.read
    row = write.row
    since, until = write.began - 2 * result.plan.bound, read.ended
    history = result.history
    events: list[tuple[float, str]] = [
        *((other.ended, _written(other, result)) for other in history.writes if other.row == row),
        *((other.ended, _seen(other, row, result)) for other in history.reads if row in other.versions),
        *(
            (fault.began, f"fault until {fault.ended - result.began:.3f}: {fault.kind}, {fault.target}")
            for fault in history.faults
        ),
    ]
    near = sorted(event for event in events if since <= event[0] <= until)
    lines = [f"{violation.promise}: a read of row {row} that began {violation.late:.3f} s too late to see that"]
    lines += [f"  {at - result.began:9.3f}  {text}" for at, text in _shortened(near)]
    return "\n".join(lines)


def _shortened(events: Sequence[tuple[float, str]]) -> Sequence[tuple[float, str]]:
    if len(events) <= 2 * _MOST_EVENTS:
        return events
    skipped = len(events) - 2 * _MOST_EVENTS
    return [*events[:_MOST_EVENTS], (events[_MOST_EVENTS][0], f"... {skipped} more"), *events[-_MOST_EVENTS:]]


def _written(write: Write, result: Result) -> str:
    commit = write.commit
    became = "without a commit"
    if commit is not None:
        became = f"version {commit.version} committed at {commit.at - result.began:.3f} by {commit.life}"
    kind = "soft write" if write.soft else "write"
    since = write.began - result.began
    by = "by another program" if write.other else f"through replica {write.replica}"
    return f"{kind} since {since:.3f} {by}: {write.outcome.value}, {became}"


def _seen(read: Read, row: int, result: Result) -> str:
    through = "through the CDN " if read.cdn else ""
    return (
        f"read {through}since {read.began - result.began:.3f} from {read.life}: version {read.versions[row]}, "
        f"filled since {read.filled - result.began:.3f}, {read.path}, {read.cache_status}"
    )
