"""Each rule of the doctor says what is wrong and what to do, and nothing where all is well."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest

from fastapi_cacheinval.core.doctor import replica_rules, server_rules
from fastapi_cacheinval.core.doctor.diagnosis import REPLICA_RULES, SERVER_RULES, diagnosis
from fastapi_cacheinval.core.doctor.examination import Access, Examination, Server
from fastapi_cacheinval.core.doctor.finding import Finding, Level, worst
from fastapi_cacheinval.core.fleet import Acknowledgement, Fleet, LogState, SeenReplica
from fastapi_cacheinval.core.statistics import Statistics
from fastapi_cacheinval.core.summary import ReplicaSummary

OK, UNKNOWN, WARNING, ERROR = Level
NOW = 1_000_000.0
LOG = LogState(term=1, seq=100, opened=NOW - 7200, lines=100, tags=40)
WELL = Server(
    kind="valkey",
    version=(9, 1, 2),
    role="master",
    persistent=False,
    policy="volatile-lru",
    max_memory=1000,
    used_memory=100,
    min_replicas=1,
    replicas=2,
)


def statistics(**counts: Any) -> Statistics:
    """Statistics of a replica on which all is well, but for these."""
    empty: dict[str, Any] = {
        each.name: {} if "Mapping" in str(each.type) else 0.0 if each.type == "float" else 0
        for each in fields(Statistics)
        if each.type != "ShadowStatistics"
    }
    return Statistics(**{**empty, "enabled": True, "connected": True, "term": 1, "applied": 100, **counts})


def replica(pid: int = 1, *, applied: int = 100, silent: float = 0.5, bound: float = 2.0, **more: Any) -> SeenReplica:
    """One replica, in touch; `package` and what is counted may be another."""
    package = more.pop("package", "1.0")
    summary = ReplicaSummary(
        replica=f"r{pid}", host="web", pid=pid, package=package, bound=bound, statistics=statistics(**more)
    )
    return SeenReplica(f"r{pid}", Acknowledgement(applied, NOW - silent, bound), silent, summary)


def untold(pid: int = 1) -> SeenReplica:
    """One in touch without a summary."""
    return replace(replica(pid), summary=None)


def of_server(**facts: Any) -> Examination:
    """A server on which all is well, but for these."""
    return seen(server=replace(WELL, **facts))


def of_replicas(*replicas: SeenReplica, log: LogState | None = LOG) -> Examination:
    """A namespace with these replicas."""
    return seen(fleet=Fleet("shop", NOW, log, replicas))


def seen(**facts: Any) -> Examination:
    """All is well, but for these."""
    given: dict[str, Any] = {
        "server": WELL,
        "access": Access(user="shop"),
        "fleet": Fleet("shop", NOW, LOG, (replica(1), replica(2))),
        "round_trips": (0.001, 0.0002, 0.0003),
        "clock_ahead": 0.01,
    }
    return Examination(**{**given, **facts})


CASES: list[tuple[Any, Examination, Level, str]] = [
    (server_rules.version, of_server(), OK, "Valkey 9.1.2"),
    (server_rules.version, of_server(kind="redis", version=(6, 2, 0)), OK, "Redis 6.2.0"),
    (server_rules.version, of_server(kind="redis", version=(6, 0, 16)), ERROR, "Redis 6.2 or later"),
    (server_rules.version, of_server(version=None), UNKNOWN, "+info"),
    (server_rules.role, of_server(), OK, "primary"),
    (server_rules.role, of_server(role="slave"), ERROR, "refuses purges"),
    (server_rules.role, of_server(role=None), UNKNOWN, "+info"),
    (server_rules.eviction, of_server(), OK, "never evicted"),
    (server_rules.eviction, of_server(policy="allkeys-lru"), WARNING, "CONFIG SET maxmemory-policy volatile-lru"),
    (server_rules.eviction, of_server(policy="allkeys-lru", max_memory=0), OK, "maxmemory is not set"),
    (server_rules.eviction, of_server(policy="noeviction"), WARNING, "refuses purges"),
    (server_rules.eviction, of_server(policy=None), UNKNOWN, "+info"),
    (server_rules.memory, of_server(), OK, "10%"),
    (server_rules.memory, of_server(used_memory=950), WARNING, "Raise maxmemory"),
    (server_rules.memory, of_server(max_memory=0), WARNING, "CONFIG SET maxmemory"),
    (server_rules.memory, of_server(used_memory=None), UNKNOWN, "+info"),
    (server_rules.persistence, of_server(), OK, "nothing on disk"),
    (server_rules.persistence, of_server(persistent=True), OK, "on disk"),
    (server_rules.persistence, of_server(persistent=True, write_errors="rdb"), ERROR, "refuse purges"),
    (server_rules.persistence, of_server(persistent=None), UNKNOWN, "+info"),
    (server_rules.write_safety, of_server(), OK, "1 of 2"),
    (server_rules.write_safety, of_server(min_replicas=0), WARNING, "CONFIG SET min-replicas-to-write 1"),
    (server_rules.write_safety, of_server(min_replicas=0, replicas=0), OK, "no failover"),
    (server_rules.write_safety, of_server(min_replicas=None), UNKNOWN, "+config|get"),
    (server_rules.write_safety, of_server(replicas=None), UNKNOWN, "+info"),
    (server_rules.access, seen(), OK, "'shop'"),
    (server_rules.access, seen(access=Access(user="shop", refused=("xadd", "info"))), ERROR, "+xadd +info"),
    (server_rules.access, seen(access=Access(user="shop", refused=("info", "subscribe"))), WARNING, "+info +subscribe"),
    (server_rules.access, seen(access=Access(known=False)), UNKNOWN, "+acl|dryrun"),
    (server_rules.latency, seen(), OK, "0.3 ms"),
    (server_rules.latency, seen(round_trips=(0.001, 0.04, 0.05)), WARNING, "near the app"),
    (server_rules.latency, seen(round_trips=()), UNKNOWN, "No round trip"),
    (server_rules.clock, seen(), OK, "agree"),
    (server_rules.clock, seen(clock_ahead=0.5), OK, "0.5 s ahead"),
    (server_rules.clock, seen(clock_ahead=-30.0), WARNING, "30.0 s behind"),
    (server_rules.clock, seen(clock_ahead=None), UNKNOWN, "not compared"),
    (replica_rules.log, seen(), OK, "began 2 h ago"),
    (replica_rules.log, of_replicas(log=None), ERROR, "--namespace"),
    (replica_rules.leases, seen(), OK, "2 of 2 replicas"),
    (replica_rules.leases, of_replicas(replica(1), replica(2, silent=9.0)), WARNING, "web/2 (silent for 9 s)"),
    (replica_rules.leases, of_replicas(SeenReplica("odd", None, None, None)), WARNING, "odd"),
    (replica_rules.leases, of_replicas(), WARNING, "Start the app"),
    (replica_rules.leases, of_replicas(*(replica(n, silent=9.0) for n in range(9))), WARNING, "and 4 more"),
    (replica_rules.lag, seen(), OK, "has read the log"),
    (replica_rules.lag, of_replicas(replica(1), replica(2, applied=40)), WARNING, "web/2 by 60"),
    (replica_rules.lag, of_replicas(replica(1, applied=98)), OK, "has read the log"),
    (replica_rules.lag, of_replicas(replica(1, applied=-1)), OK, "has read the log"),
    (replica_rules.lag, of_replicas(), UNKNOWN, "no replica"),
    (replica_rules.queues, seen(), OK, "No purge waits"),
    (replica_rules.queues, of_replicas(replica(1, queue_length=7)), ERROR, "web/1 has 7"),
    (replica_rules.queues, of_replicas(untold()), UNKNOWN, "left no summary"),
    (replica_rules.bounds, seen(), OK, "2 s"),
    (replica_rules.bounds, of_replicas(replica(1), replica(2, bound=10.0)), WARNING, "2 s, 10 s"),
    (replica_rules.bounds, of_replicas(), OK, "no replica"),
    (replica_rules.packages, seen(), OK, "1.0"),
    (replica_rules.packages, of_replicas(replica(1), replica(2, package="2.0")), WARNING, "1.0, 2.0"),
    (replica_rules.packages, of_replicas(untold()), UNKNOWN, "left no summary"),
    (replica_rules.switches, seen(), OK, "on"),
    (replica_rules.switches, of_replicas(replica(1, enabled=False)), WARNING, "CACHEINVAL_ENABLED"),
    (replica_rules.switches, of_replicas(untold()), UNKNOWN, "left no summary"),
    (replica_rules.resets, of_replicas(replica(1, reset_causes={"start": 9})), OK, "No replica"),
    (replica_rules.resets, of_replicas(replica(1, reset_causes={"new-term": 4})), WARNING, "web/1 4 times (new-term)"),
    (replica_rules.resets, of_replicas(replica(1, reset_causes={"start": 1, "behind": 1})), OK, "web/1 once (behind)"),
    (replica_rules.resets, of_replicas(untold()), UNKNOWN, "left no summary"),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "case", "level", "says"), CASES)
def test_a_rule_says_how_it_stands_and_what_to_do(rule: Any, case: Examination, level: Level, says: str) -> None:
    """Each rule gives its level and a text that names the fact; what is wrong has a cure, and what is well has none."""
    finding = rule(case)
    assert finding.level is level
    assert says in f"{finding.found} {finding.cure}"
    if level in (WARNING, ERROR):
        assert finding.cure
    if level is OK:
        assert not finding.cure


@pytest.mark.parametrize("rule", [*SERVER_RULES, *REPLICA_RULES])
def test_every_rule_has_a_case_for_each_way_it_can_end(rule: Any) -> None:
    """The table above has one where all is well, and one where it is not."""
    levels = {level for known, _, level, _ in CASES if known is rule}
    assert OK in levels
    assert levels & {WARNING, ERROR}


def test_where_all_is_well_every_finding_says_so() -> None:
    """And each has another name."""
    findings = diagnosis(seen())
    assert {each.level for each in findings} == {OK}
    assert len({each.check for each in findings}) == len(SERVER_RULES) + len(REPLICA_RULES)
    assert worst(findings) is OK


def test_replicas_that_cannot_be_read_are_one_finding() -> None:
    """Nothing is made up of them."""
    findings = diagnosis(seen(unreadable="NOPERM"))
    assert len(findings) == len(SERVER_RULES) + 1
    assert findings[-1].level is ERROR
    assert "NOPERM" in findings[-1].found
    assert worst(findings) is ERROR


def test_the_worst_of_findings_counts() -> None:
    """In the order of the levels, whatever the order of the findings."""
    levels = [WARNING, OK, UNKNOWN]
    assert worst([Finding("x", level, "") for level in levels]) is WARNING
    assert worst([]) is OK
