"""Freshness and the one decision of a lookup, as laws over all ages, policies and purges."""

from __future__ import annotations

from math import inf, log, nextafter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from fastapi_cacheinval.core.decide import (
    Forward,
    Serve,
    ServeStale,
    decide,
    early_refresh_due,
    usable_on_error,
)
from fastapi_cacheinval.core.outcome import Reason
from fastapi_cacheinval.core.stored import Stamp, StoredResponse
from fastapi_cacheinval.core.storing import early_refresh_from, jittered

TIMES = st.floats(0, 1e6)
DRAWS = st.floats(0, 1, exclude_max=True)


def stored(
    *,
    fresh: float = 60.0,
    swr: float = 0.0,
    sie: float = 0.0,
    strict: bool = False,
    fill: float = 0.0,
    beta: float = 0.0,
) -> StoredResponse:
    """A response made at 0."""
    fields: dict[str, Any] = {
        "key": b"k",
        "status": 200,
        "headers": (),
        "body": b"",
        "etag": None,
        "last_modified": None,
        "tags": (),
        "vary": (),
        "stamp": Stamp(0, 0, 0, 0.0),
        "created": 0.0,
        "fresh_until": fresh,
        "early_refresh_from": early_refresh_from(fresh, fill, beta),
        "fill_seconds": fill,
        "early_refresh": beta,
        "stale_while_revalidate": swr,
        "stale_if_error": sie,
        "must_revalidate": strict,
        "anonymous": True,
    }
    return StoredResponse(**fields)


responses = st.builds(
    stored,
    fresh=TIMES,
    swr=st.just(0.0) | TIMES,
    sie=st.just(0.0) | TIMES,
    strict=st.booleans(),
    fill=st.floats(0, 100),
    beta=st.floats(0, 10),
)
soft = st.just(inf) | TIMES


@given(DRAWS, st.floats(0, 1), TIMES)
def test_jitter_only_shortens_and_by_no_more_than_it_says(draw: float, jitter: float, ttl: float) -> None:
    """The lifetime lies in [ttl * (1 - jitter), ttl], whatever is drawn; without jitter it is the ttl."""
    life = jittered(ttl, jitter, draw)
    assert ttl * (1 - jitter) - 1e-9 * ttl <= life <= ttl
    assert jittered(ttl, 0, draw) == ttl


@given(responses, soft, TIMES, DRAWS)
def test_a_response_is_served_by_exactly_one_rule(
    response: StoredResponse, stale_from: float, now: float, draw: float
) -> None:
    """Fresh before its end and before any soft purge, stale for as long as is allowed, else forwarded as stale."""
    end = min(response.fresh_until, stale_from)
    decision = decide(response, stale_from, now, draw)
    if now < end:
        assert isinstance(decision, Serve)
        assert decision.stored is response
    elif not response.must_revalidate and now < end + response.stale_while_revalidate:
        assert decision == ServeStale(response)
    else:
        assert decision == Forward(Reason.STALE)


@given(responses, soft, TIMES, TIMES, DRAWS)
def test_freshness_never_comes_back_with_age(
    response: StoredResponse, stale_from: float, one: float, two: float, draw: float
) -> None:
    """Fresh, stale, forward: a response only ever moves on in this order as time passes."""
    earlier, later = sorted((one, two))
    rank = {Serve: 0, ServeStale: 1, Forward: 2}
    decisions = [decide(response, stale_from, now, draw) for now in (earlier, later)]
    assert rank[type(decisions[0])] <= rank[type(decisions[1])]  # type: ignore[index]  # pyright: ignore[reportArgumentType]


@given(responses, TIMES, TIMES, DRAWS)
def test_a_soft_purge_never_prolongs(response: StoredResponse, stale_from: float, now: float, draw: float) -> None:
    """What is forwarded without the purge is forwarded with it, and nothing is fresh after it."""
    touched = decide(response, stale_from, now, draw)
    if isinstance(decide(response, inf, now, draw), Forward):
        assert isinstance(touched, Forward)
    if now >= stale_from:
        assert not isinstance(touched, Serve)


@given(responses, TIMES, DRAWS)
def test_what_is_known_to_be_wrong_is_never_served(response: StoredResponse, now: float, draw: float) -> None:
    """The replica's None, a hard purge for one, forwards as a miss whatever the policy allows, and stands in for no error."""
    assert decide(response, None, now, draw) == Forward(Reason.URI_MISS)
    assert not usable_on_error(response, None, now)
    assert decide(None, inf, now, draw) == Forward(Reason.URI_MISS)


@given(responses, soft, TIMES)
def test_a_response_stands_in_for_an_error_while_fresh_or_allowed(
    response: StoredResponse, stale_from: float, now: float
) -> None:
    """RFC 5861 section 4; `must-revalidate` forbids it once stale."""
    end = min(response.fresh_until, stale_from)
    allowed = 0.0 if response.must_revalidate else response.stale_if_error
    assert usable_on_error(response, stale_from, now) == (now < end or (allowed > 0 and now < end + allowed))


@given(responses, TIMES, DRAWS)
def test_nothing_is_usable_after_the_store_may_let_it_go(response: StoredResponse, now: float, draw: float) -> None:
    """`usable_until` is the end of every use: the store loses nothing that a decision would still serve."""
    if now >= response.usable_until:
        assert decide(response, inf, now, draw) == Forward(Reason.STALE)
        assert not usable_on_error(response, inf, now)


@given(responses, TIMES, DRAWS)
def test_no_draw_asks_for_a_refresh_while_it_is_calm(response: StoredResponse, now: float, draw: float) -> None:
    """Before `calm_until` one comparison is enough: `decide` could not have asked for a refresh."""
    if now < response.early_refresh_from and now < response.fresh_until:
        assert decide(response, inf, now, draw) == Serve(response, refresh=False)
        assert not early_refresh_due(
            now, response.fresh_until, response.fill_seconds, response.early_refresh, nextafter(1, 0)
        )


@given(fill=st.floats(0.001, 100), beta=st.floats(0.001, 10), draw=st.floats(0.01, 0.99), left=st.floats(0.001, 1000))
def test_early_refresh_is_xfetch(fill: float, beta: float, draw: float, left: float) -> None:
    """Due exactly where -fill * beta * ln(1 - draw) reaches the remaining life."""
    threshold = -fill * beta * log(1 - draw)
    if abs(threshold - left) > 1e-6:
        assert early_refresh_due(1000.0 - left, 1000.0, fill, beta, draw) == (threshold > left)


@given(fill=st.floats(0, 100), now=st.floats(0, 59.9), draw=DRAWS)
def test_beta_zero_switches_early_refresh_off(fill: float, now: float, draw: float) -> None:
    """Without it no draw ever refreshes before the end; nor does a fill that took no time."""
    response = stored(fill=fill)
    assert decide(response, inf, now, draw) == Serve(response, refresh=False)
    assert not early_refresh_due(now, 60.0, fill, 0, draw)


def test_the_end_itself_is_stale() -> None:
    """RFC 9111 section 4.2: fresh while the age is below the lifetime, not at it."""
    assert isinstance(decide(stored(), inf, 59.999, 0.0), Serve)
    assert isinstance(decide(stored(), inf, 60.0, 0.0), Forward)
    assert isinstance(decide(stored(swr=5), inf, 60.0, 0.0), ServeStale)
    assert isinstance(decide(stored(swr=5), inf, 65.0, 0.0), Forward)
    assert isinstance(decide(stored(swr=5, strict=True), inf, 60.0, 0.0), Forward)
