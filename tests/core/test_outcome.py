"""How an answer is told of in `Cache-Status`."""

from __future__ import annotations

from itertools import product

import pytest

from fastapi_cacheinval.core.outcome import Outcome, Reason, Result, cache_status
from fastapi_cacheinval.grammar.cache_status import CacheStatus, parse_cache_status, serialise_cache_status

REASONS = [None, *Reason]
DETAILS = [None, "too-large"]


@pytest.mark.parametrize("result", list(Result))
def test_the_quick_forms_say_what_the_general_form_says(result: Result) -> None:
    """Whatever is known of an answer, its member is the one that `serialise_cache_status` gives."""
    for reason, ttl, stored, fwd_status, detail in product(
        REASONS, [None, -5, 0, 60], [False, True], [None, 304], DETAILS
    ):
        outcome = Outcome(result, "l1", reason, 1.0, ttl, fwd_status, stored, detail)
        general = CacheStatus(
            hit=reason is None and result in (Result.HIT, Result.STALE),
            fwd=None if reason is None else reason.value,
            fwd_status=fwd_status,
            ttl=ttl,
            stored=stored,
            collapsed=result is Result.COLLAPSED,
            detail=detail,
        )
        quick = result in (Result.HIT, Result.STALE) and reason is None and ttl is not None and detail is None
        if quick and (stored or fwd_status is not None):
            # No hit is stored anew, or has gone forward.
            continue
        assert cache_status(outcome) == serialise_cache_status(general)
        assert parse_cache_status(cache_status(outcome)) == [general]
