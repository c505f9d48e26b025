"""Names of attributes; tags, keys, partitions and query values are none."""

from __future__ import annotations

__all__ = [
    "AGE",
    "CAUSE",
    "DETAIL",
    "EVENT",
    "OPERATION",
    "OUTCOME",
    "REASON",
    "RESULT",
    "ROUTE",
    "SOFT",
    "SOURCE",
    "TIER",
]

RESULT = "cacheinval.result"
TIER = "cacheinval.tier"
AGE = "cacheinval.age"
# The `fwd` and the `detail` of `Cache-Status`, on spans and metrics alike.
REASON = "cacheinval.reason"
DETAIL = "cacheinval.detail"
ROUTE = "http.route"
OUTCOME = "cacheinval.outcome"
OPERATION = "cacheinval.operation"
EVENT = "cacheinval.event"
SOFT = "cacheinval.soft"
CAUSE = "cacheinval.cause"
SOURCE = "cacheinval.source"
