"""The rules of the replica's state machine, one by one."""

from __future__ import annotations

import time
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastapi_cacheinval.core.log_types import Ask, Current, LogEntry, Missed, Next, Page, Reset, Term
from fastapi_cacheinval.core.replica import Replica

_TERM = Term(1, "t")


def _replica(**options) -> Replica:
    replica = Replica(staleness_bound=2.0, **options)
    assert replica.apply_reply(Reset(_TERM, 0, ""), 0.0, 0.0) is Next.NOTHING
    return replica


def _line(seq: int, *tags: str, soft: bool = False, nonce: str | None = None, term: Term = _TERM) -> LogEntry:
    return LogEntry(term, seq, f"n{seq}" if nonce is None else nonce, tags or ("a",), soft, 0.0)


def test_nothing_is_handed_over_before_the_log_has_answered() -> None:
    """A replica that has just begun has no lease; only what it fills itself may go out, for as long as the bound."""
    replica = Replica(staleness_bound=2.0)
    stamp = replica.stamp(0.0)
    assert not replica.live(0.0)
    assert replica.stale_from(stamp._replace(began=-inf), ("a",), 1.0) is None
    assert replica.stale_from(stamp, ("a",), 1.9) == inf
    assert replica.stale_from(stamp, ("a",), 2.0) is None


def test_the_lease_runs_from_the_moment_the_heartbeat_was_sent() -> None:
    """A reply that took long leaves less of the lease, however late it comes."""
    replica = _replica()
    replica.apply_reply(Current(_TERM), 10.0, 11.5)
    assert replica.live(11.9)
    assert not replica.live(12.0)


def test_an_older_reply_never_shortens_the_lease() -> None:
    """Replies may come in any order; the lease is the best of them."""
    replica = _replica()
    replica.apply_reply(Current(_TERM), 10.0, 10.1)
    replica.apply_reply(Current(_TERM), 9.0, 10.2)
    assert replica.lease_until == 12.0


def test_missed_lines_renew_the_lease_only_when_all_of_them_are_applied() -> None:
    """A reply with a hole in it proves nothing, but what it has before the hole is obeyed."""
    replica = _replica()
    stamp = replica.stamp(9.0)
    assert replica.apply_reply(Missed(_TERM, (_line(1), _line(3))), 10.0, 10.0) is Next.ASK
    assert replica.lease_until == 2.0
    assert replica.applied == 1
    assert replica.stale_from(stamp, ("a",), 9.5) is None
    assert replica.apply_reply(Missed(_TERM, (_line(1), _line(2), _line(3))), 10.5, 10.6) is Next.NOTHING
    assert replica.lease_until == 12.5
    assert replica.applied == 3


def test_a_page_of_missed_lines_renews_no_lease_while_there_are_more() -> None:
    """Its lines are obeyed, and the next page is asked for; the last one renews the lease from when it was asked for."""
    replica = _replica()
    assert replica.apply_reply(Missed(_TERM, (_line(1),), more=True), 10.0, 10.1) is Next.ASK
    assert (replica.lease_until, replica.applied) == (2.0, 1)
    assert replica.apply_reply(Missed(_TERM, (_line(2),), more=True), 10.2, 10.3) is Next.ASK
    assert replica.apply_reply(Missed(_TERM, (_line(3),)), 10.4, 10.5) is Next.NOTHING
    assert (replica.lease_until, replica.applied) == (12.4, 3)


def test_a_page_counts_as_an_answer() -> None:
    """What was asked for before it came leads to no other term."""
    replica = _replica()
    replica.apply_reply(Missed(_TERM, (_line(1),), more=True), 10.0, 10.5)
    assert replica.apply_reply(Reset(Term(2, "u"), 0, "m"), 10.2, 10.6) is Next.ASK
    assert replica.term == _TERM


def test_a_message_never_renews_the_lease() -> None:
    """That somebody writes to the log does not say that this replica has read all of it."""
    replica = _replica()
    replica.apply_message(_line(1), 1.9)
    assert replica.lease_until == 2.0


def test_a_gap_asks_the_log_and_applies_nothing() -> None:
    """Line 2 without line 1 is not applied: line 1 might be about anything."""
    replica = _replica()
    stamp = replica.stamp(0.0)
    assert replica.apply_message(_line(2), 0.5) is Next.ASK
    assert replica.applied == 0
    assert replica.stale_from(stamp, ("a",), 0.5) == inf


def test_a_doubled_message_is_applied_once() -> None:
    """A fill that began after a purge is not purged by its echo."""
    replica = _replica()
    replica.apply_message(_line(1), 0.1)
    stamp = replica.stamp(0.2)
    assert replica.apply_message(_line(1), 0.3) is Next.NOTHING
    assert replica.stale_from(stamp, ("a",), 0.4) == inf


def test_messages_of_a_term_that_is_over_are_ignored() -> None:
    """A late message of term 1 says nothing about term 2, and neither does a late reply."""
    replica = _replica()
    later = Term(2, "u")
    replica.apply_reply(Reset(later, 0, ""), 1.0, 1.0)
    assert replica.apply_message(_line(1), 1.1) is Next.NOTHING
    assert replica.apply_reply(Current(_TERM), 5.0, 5.0) is Next.NOTHING
    assert replica.apply_reply(Missed(_TERM, (_line(1),)), 5.0, 5.0) is Next.NOTHING
    assert replica.apply_reply(Reset(_TERM, 7, "x"), 5.0, 5.0) is Next.NOTHING
    assert (replica.term, replica.applied, replica.lease_until) == (later, 0, 3.0)


@pytest.mark.parametrize("term", [Term(2, "u"), Term(1, "other")])
def test_a_message_of_another_term_asks_the_log(term: Term) -> None:
    """A later number, or the same with another nonce, may be an opening that this replica has not heard of."""
    replica = _replica()
    assert replica.apply_message(_line(1, term=term), 0.5) is Next.ASK
    assert replica.applied == 0


@pytest.mark.parametrize("reply", [Current(Term(1, "other")), Missed(Term(2, "u"), (_line(1, term=Term(2, "u")),))])
def test_a_reply_of_another_term_ends_the_lease_and_everything_kept(reply: Current | Missed) -> None:
    """Past and present do not meet: nothing kept can be proved, and no lease is given until a reset says where to go on."""
    replica = _replica()
    stamp = replica.stamp(0.0)
    assert replica.apply_reply(reply, 1.0, 1.0) is Next.ASK
    assert not replica.live(1.0)
    assert replica.stale_from(stamp, ("a",), 1.0) is None


@pytest.mark.parametrize("seq", [1, 2])
def test_a_number_seen_with_another_nonce_ends_everything_kept(seq: int) -> None:
    """A log that was rolled back and written again has the same numbers; its nonces give it away, at any line remembered."""
    replica = _replica()
    replica.apply_message(_line(1), 0.1)
    replica.apply_message(_line(2), 0.1)
    stamp = replica.stamp(0.2)
    assert replica.apply_message(_line(seq, nonce="other"), 0.5) is Next.ASK
    assert not replica.live(0.5)
    assert replica.stale_from(stamp, ("b",), 0.5) is None


def test_a_reset_is_a_logical_flush() -> None:
    """What was filled before a reset is gone, what is filled after it is good, at whatever number the log goes on."""
    replica = _replica()
    before = replica.stamp(0.5)
    assert replica.apply_reply(Reset(Term(2, "u"), 40, "n40"), 1.0, 1.2) is Next.NOTHING
    after = replica.stamp(1.3)
    assert replica.stale_from(before, ("a",), 1.4) is None
    assert replica.stale_from(after, ("a",), 1.4) == inf
    assert replica.apply_message(_line(41, term=Term(2, "u")), 1.5) is Next.NOTHING
    assert replica.stale_from(after, ("a",), 1.5) is None


def test_a_soft_purge_does_not_hide_a_hard_one() -> None:
    """Hard, then soft: unusable; a fill between the two is only stale."""
    replica = _replica()
    before = replica.stamp(0.0)
    replica.apply_message(_line(1), 0.1)
    between = replica.stamp(0.2)
    replica.apply_message(_line(2, soft=True), 0.3)
    assert replica.stale_from(before, ("a",), 0.4) is None
    assert replica.stale_from(between, ("a",), 0.4) == 0.3
    assert replica.stale_from(replica.stamp(0.4), ("a",), 0.4) == inf


def test_a_hard_purge_after_a_soft_one_counts_too() -> None:
    """Soft, then hard: unusable, also for what was filled between the two."""
    replica = _replica()
    replica.apply_message(_line(1, soft=True), 0.1)
    between = replica.stamp(0.2)
    replica.apply_message(_line(2), 0.3)
    assert replica.stale_from(between, ("a",), 0.4) is None


def test_the_earliest_soft_purge_of_the_tags_says_from_when_a_response_is_stale() -> None:
    """Of several tags the one that was purged first counts."""
    replica = _replica()
    stamp = replica.stamp(0.0)
    replica.apply_message(_line(1, "b", soft=True), 0.2)
    replica.apply_message(_line(2, "a", soft=True), 0.5)
    assert replica.stale_from(stamp, ("a", "b"), 0.6) == 0.2


def test_purged_tags_beyond_the_limit_raise_the_floor() -> None:
    """A purge that is forgotten takes everything from before it along; what was filled after it stays."""
    replica = _replica(most_cells=2)
    old = replica.stamp(0.0)
    replica.apply_message(_line(1, "a"), 0.1)
    middle = replica.stamp(0.2)
    replica.apply_message(_line(2, "b"), 0.3)
    replica.apply_message(_line(3, "c"), 0.4)
    assert (len(replica.cells), replica.floor) == (2, 1)
    assert replica.stale_from(old, ("z",), 0.5) is None
    assert replica.stale_from(middle, ("z",), 0.5) == inf
    assert replica.stale_from(middle, ("a",), 0.5) == inf


def test_a_tag_purged_again_is_not_the_oldest_any_more() -> None:
    """The cell that goes is the one that was purged the longest time ago."""
    replica = _replica(most_cells=2)
    for seq, tag in enumerate(("a", "b", "a", "c"), 1):
        replica.apply_message(_line(seq, tag), 0.1)
    assert set(replica.cells) == {"a", "c"}
    assert replica.floor == 2


def test_one_line_with_more_tags_than_are_remembered_still_purges_them_all() -> None:
    """The floor stands in for the cells that found no room."""
    replica = _replica(most_cells=2)
    stamp = replica.stamp(0.0)
    replica.apply_message(_line(1, "a", "b", "c", "d"), 0.1)
    assert all(replica.stale_from(stamp, (tag,), 0.2) is None for tag in "abcd")


def test_a_reply_asked_for_before_the_last_answer_came_opens_no_other_term() -> None:
    """It may tell of a life of the log that ended before that answer, in which an own purge was done; so ask again."""
    replica = _replica()
    replica.apply_reply(Current(_TERM), 10.0, 10.4)
    for reply in (Reset(Term(2, "u"), 3, "m"), Reset(Term(1, "other"), 3, "m"), Current(Term(1, "other"))):
        assert replica.apply_reply(reply, 10.2, 10.5) is Next.ASK
        assert (replica.term, replica.generation, replica.lease_until) == (_TERM, 1, 12.0)
    assert replica.apply_reply(Reset(Term(2, "u"), 3, "m"), 10.5, 10.6) is Next.NOTHING
    assert replica.term == Term(2, "u")


def test_what_was_asked_before_a_reset_makes_nothing_forgotten_again() -> None:
    """It shows that the log went on, so the log is asked from where the replica is now, and no lease begins."""
    replica = _replica()
    later = Term(2, "u")
    assert replica.apply_reply(Reset(later, 1, "m1"), 10.0, 10.1) is Next.NOTHING
    generation = replica.generation
    stamp = replica.stamp(10.2)
    assert replica.apply_reply(Reset(later, 2, "m2"), 10.05, 10.2) is Next.ASK
    assert (replica.generation, replica.applied, replica.lag, replica.lease_until) == (generation, 1, 1, 12.0)
    line = _line(2, "b", term=later, nonce="m2")
    assert replica.apply_reply(Missed(later, (line,)), 10.2, 10.3) is Next.NOTHING
    assert replica.stale_from(stamp, ("a",), 10.3) is not None
    assert replica.stale_from(stamp, ("b",), 10.3) is None


def test_who_only_publishes_takes_how_far_its_purges_have_come_from_any_reset() -> None:
    """It reads no lines, and a server that lacks a purge of its own must not be taken for the log."""
    replica = _replica()
    replica.apply_reply(Reset(_TERM, 1, "m1"), 10.0, 10.1, lease=False)
    assert replica.apply_reply(Reset(_TERM, 2, "m2"), 10.05, 10.2, lease=False) is Next.NOTHING
    assert replica.ask() == Ask(_TERM, 2, "m2")


def test_a_reset_in_the_same_term_that_was_asked_for_since_counts() -> None:
    """The log has not kept what is missing: nothing from before can be proved."""
    replica = _replica()
    replica.apply_reply(Reset(_TERM, 1, "m1"), 10.0, 10.1)
    stamp = replica.stamp(10.1)
    assert replica.apply_reply(Reset(_TERM, 9, "m9"), 10.1, 10.2) is Next.NOTHING
    assert replica.stale_from(stamp, ("a",), 10.2) is None
    assert replica.applied == 9


def _page(seq: int, *, up_to: int, purged: tuple[tuple[str, int, bool], ...] = ()) -> Page:
    return Page(_TERM, seq, up_to, 0, purged)


def test_a_page_tells_what_was_purged_before_the_replica_joined() -> None:
    """Until it is learned everything from before is refused, afterwards only what it names."""
    replica = _replica()
    replica.apply_reply(Reset(Term(2, "u"), 5, "n5"), 0.0, 0.0)
    page = Page(Term(2, "u"), 5, 5, 0, (("a", 4, False), ("b", 4, True)))
    stamp = replica.adopt(Term(2, "u"), 3, 0.1)
    assert stamp is not None
    assert replica.stale_from(stamp, ("c",), 0.1) is None
    assert replica.apply_page(page, 0.2)
    assert replica.stale_from(stamp, ("a",), 0.3) is None
    assert replica.stale_from(stamp, ("b",), 0.3) == 0.2
    assert replica.stale_from(stamp, ("c",), 0.3) == inf
    assert not replica.apply_page(page, 0.4)


def test_a_page_is_refused_while_lines_that_the_log_had_by_then_are_not_applied() -> None:
    """A tag that such a line purges again stands above the page's span: its earlier purge would be forgotten."""
    replica = _replica()
    replica.apply_reply(Reset(_TERM, 5, "n5"), 0.1, 0.1)
    # "a" was purged by line 4, and by line 6 when the page was read.
    assert not replica.apply_page(_page(6, up_to=5, purged=()), 0.2)
    assert replica.floor == 5
    replica.apply_message(_line(6), 0.3)
    assert replica.apply_page(_page(6, up_to=5, purged=()), 0.4)
    stamp = replica.adopt(_TERM, 3, 0.5)
    assert stamp is not None
    assert replica.stale_from(stamp, ("a",), 0.5) is None
    assert replica.stale_from(stamp, ("z",), 0.5) == inf


def test_a_page_of_a_log_that_ends_below_it_is_refused() -> None:
    """A server that was rolled back, and that no script call has told so yet, has lost purges of the page's span."""
    replica = _replica()
    replica.apply_reply(Reset(_TERM, 5, "n5"), 0.1, 0.1)
    assert not replica.apply_page(_page(4, up_to=5), 0.2)
    assert replica.floor == 5


def test_a_fence_stops_what_was_filled_before_it_and_lets_through_what_was_filled_after() -> None:
    """The purge has no number yet; a local counter tells the two apart."""
    replica = _replica()
    before = replica.stamp(0.0)
    handle = replica.fence(("a", "b"))
    after = replica.stamp(0.1)
    assert replica.stale_from(before, ("a",), 0.2) is None
    assert replica.stale_from(before, ("c",), 0.2) == inf
    assert replica.stale_from(after, ("a",), 0.2) == inf
    assert replica.fenced(("x", "b"))
    assert not replica.fenced(("x",))
    replica.lift(handle)
    assert not replica.fenced(("a", "b"))


def test_of_two_fences_of_a_tag_the_later_one_outlives_the_first() -> None:
    """Lifting the first leaves the second in force, for what was filled before either."""
    replica = _replica()
    stamp = replica.stamp(0.0)
    first = replica.fence(("a",))
    between = replica.stamp(0.1)
    second = replica.fence(("a",))
    replica.lift(first)
    assert replica.stale_from(stamp, ("a",), 0.2) is None
    assert replica.stale_from(between, ("a",), 0.2) is None
    replica.lift(second)
    assert replica.stale_from(between, ("a",), 0.2) == inf


def test_of_two_fences_of_a_tag_the_first_one_outlives_the_later() -> None:
    """Purges may get their numbers in any order: while the first has none, what is older stays refused."""
    replica = _replica()
    stamp = replica.stamp(0.0)
    replica.fence(("a",))
    between = replica.stamp(0.1)
    replica.lift(replica.fence(("a",)))
    assert replica.fenced(("a",))
    assert replica.stale_from(stamp, ("a",), 0.2) is None
    assert replica.stale_from(between, ("a",), 0.2) == inf


def test_a_fence_holds_without_a_lease_too() -> None:
    """Disconnected, the own young fill of before the fence does not go out, nor what grace would allow."""
    replica = _replica(stale_when_disconnected=60.0)
    stamp = replica.stamp(3.0)
    replica.fence(("a",))
    assert not replica.live(3.5)
    assert replica.stale_from(stamp, ("a",), 3.5) is None
    assert replica.stale_from(stamp, ("b",), 3.5) == inf


def test_an_own_purge_holds_without_a_lease_too() -> None:
    """What this replica has applied it obeys, whether or not it is in touch with the log."""
    replica = _replica(stale_when_disconnected=60.0)
    stamp = replica.stamp(3.0)
    replica.apply_message(_line(1), 3.2)
    assert replica.stale_from(stamp, ("a",), 3.5) is None


def test_grace_after_the_lease_is_for_anything_and_the_bound_only_for_own_fills() -> None:
    """Past `stale_when_disconnected` only what the replica began to fill within the bound goes out."""
    replica = _replica(stale_when_disconnected=5.0)
    others = replica.adopt(replica.term, replica.applied, 1.0)
    assert others is not None
    assert replica.stale_from(others, ("a",), 6.9) == inf
    assert replica.stale_from(others, ("a",), 7.0) is None
    young = replica.stamp(6.0)
    assert replica.stale_from(young, ("a",), 7.9) == inf
    assert replica.stale_from(others, ("a",), 7.9) is None


def test_the_change_counter_moves_with_whatever_could_concern_a_response() -> None:
    """A purge, a fence, a reset and a doubt each move it; a heartbeat without news does not."""
    replica = _replica()
    seen = [replica.changes]

    def moved() -> bool:
        seen.append(replica.changes)
        return seen[-1] != seen[-2]

    replica.apply_reply(Current(_TERM), 0.5, 0.5)
    assert not moved()
    replica.apply_message(_line(1), 0.5)
    assert moved()
    replica.fence(("a",))
    assert moved()
    replica.apply_message(_line(1, nonce="other"), 0.5)
    assert moved()
    replica.apply_reply(Reset(Term(2, "u"), 0, ""), 0.5, 0.5)
    assert moved()


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9), st.sets(st.sampled_from("abcd"), min_size=1))))
def test_a_tag_is_fenced_as_long_as_one_of_its_fences_stands(steps: list[tuple[bool, int, set[str]]]) -> None:
    """In whichever order fences are set and lifted, and by the latest of those that stand."""
    replica = _replica()
    standing: dict[int, set[str]] = {}
    for lifts, which, tags in steps:
        if lifts and standing:
            handle = list(standing)[which % len(standing)]
            replica.lift(handle)
            del standing[handle]
        else:
            # A tag that is named twice is fenced once.
            standing[replica.fence((*tags, *tags))] = tags
        for tag in "abcd":
            latest = max((handle for handle, named in standing.items() if tag in named), default=None)
            assert replica.fenced((tag,)) is (latest is not None)
            before = replica.stamp(0.0)._replace(fence=-1 if latest is None else latest - 1)
            assert (replica.stale_from(before, (tag,), 0.0) is None) is (latest is not None)
            after = before._replace(fence=0 if latest is None else latest)
            assert replica.stale_from(after, (tag,), 0.0) == inf


def test_lifting_fences_of_many_tags_takes_no_longer_than_setting_them() -> None:
    """Two fences of eight thousand tags each took 0.8 seconds of the loop to lift."""
    replica = _replica()
    tags = tuple(f"tag:{number}" for number in range(8_000))
    handles = [replica.fence(tags) for _ in range(10)]
    began = time.process_time()
    for handle in handles:
        replica.lift(handle)
    assert time.process_time() - began < 0.5
    assert not replica.fenced(tags)
