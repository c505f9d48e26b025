"""What only newer releases of the frameworks have: tests say what holds with either."""

from __future__ import annotations

import inspect
from importlib.util import find_spec

import fastapi
from opentelemetry.metrics import Meter
from packaging.version import Version

__all__ = ["ADVISES_BUCKETS", "LIMITS_CALLS", "NATIVE_TELEMETRY", "SEES_INCLUDED"]

# Whether the app of an included route is to be had, behind which the cache works for a route class of one's own.
SEES_INCLUDED = Version(fastapi.__version__) >= Version("0.143")

# Whether `Depends` takes `max_concurrency`.
LIMITS_CALLS = "max_concurrency" in inspect.signature(fastapi.Depends).parameters

NATIVE_TELEMETRY = find_spec("fastapi.telemetry") is not None

# Whether a histogram can name its buckets; before that, an operator has to.
ADVISES_BUCKETS = "explicit_bucket_boundaries_advisory" in inspect.signature(Meter.create_histogram).parameters
