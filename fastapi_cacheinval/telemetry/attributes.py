"""Names of attributes; tags, keys, partitions and query values are none."""

from __future__ import annotations

__all__ = ["AGE", "CAUSE", "EVENT", "OUTCOME", "REASON", "RESULT", "ROUTE", "SOFT", "SOURCE", "TIER"]

RESULT = "cacheinval.result"
TIER = "cacheinval.tier"
AGE = "cacheinval.age"
REASON = "cacheinval.reason"
ROUTE = "http.route"
OUTCOME = "outcome"
EVENT = "event"
SOFT = "soft"
CAUSE = "cause"
SOURCE = "cacheinval.source"
