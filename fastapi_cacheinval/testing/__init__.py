"""For tests of apps that use the cache: its time, what it answered, what it purged, and replicas as real processes."""

from fastapi_cacheinval.testing.assertions import assert_hit, assert_miss, assert_stale
from fastapi_cacheinval.testing.clock import FakeClock
from fastapi_cacheinval.testing.invalidations import capture_invalidations
from fastapi_cacheinval.testing.replicas import Replicas

__all__ = ["FakeClock", "Replicas", "assert_hit", "assert_miss", "assert_stale", "capture_invalidations"]
