"""All rules, in the order in which a person reads them."""

from __future__ import annotations

from fastapi_cacheinval.core.doctor import replica_rules, server_rules
from fastapi_cacheinval.core.doctor.examination import Examination
from fastapi_cacheinval.core.doctor.finding import Finding, Level

__all__ = ["REPLICA_RULES", "SERVER_RULES", "diagnosis"]

SERVER_RULES = (
    server_rules.version,
    server_rules.role,
    server_rules.access,
    server_rules.latency,
    server_rules.clock,
    server_rules.memory,
    server_rules.eviction,
    server_rules.persistence,
    server_rules.write_safety,
)
"""What is said of the server; each rule looks at one thing and gives one finding."""

REPLICA_RULES = (
    replica_rules.log,
    replica_rules.leases,
    replica_rules.lag,
    replica_rules.queues,
    replica_rules.bounds,
    replica_rules.packages,
    replica_rules.switches,
    replica_rules.resets,
)
"""What is said of the namespace and its replicas."""


def diagnosis(seen: Examination) -> list[Finding]:
    """What every rule finds."""
    findings = [rule(seen) for rule in SERVER_RULES]
    if seen.unreadable:
        cure = "Allow the user +time +hmget +hgetall +xlen +zcard +mget on the keys of the namespace."
        return [
            *findings,
            Finding("replicas", Level.ERROR, f"The replicas could not be read: {seen.unreadable}.", cure),
        ]
    return [*findings, *(rule(seen) for rule in REPLICA_RULES)]
