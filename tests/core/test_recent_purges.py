"""The memory of purges: which of them hit a response, and how much is remembered."""

from __future__ import annotations

from fastapi_cacheinval.core.events import PurgeEvent, RecentPurges, shown_target
from fastapi_cacheinval.core.tags import ALL, path_tag


def purge(seq: int, *tags: str, paths: tuple[str, ...] = (), everything: bool = False) -> PurgeEvent:
    return PurgeEvent(0.0, 1, seq, tags, paths, soft=False, everything=everything, own=True)


def test_the_last_purge_of_a_response_is_found_by_any_of_its_tags() -> None:
    """By a tag, by its path, or as a purge of everything; the newest of them."""
    recent = RecentPurges()
    tags = ("product:1", path_tag("/products/1"), ALL)
    assert recent.last_of(tags) is None
    for each in (purge(1, "product:1", "x"), purge(2, "product:2"), purge(3, paths=("/products/1",))):
        recent.add(each)
    found = recent.last_of(tags)
    assert found is not None
    assert found.seq == 3
    assert recent.last_of(("product:2",)) == purge(2, "product:2")
    recent.add(purge(4, everything=True))
    assert recent.last_of(tags) == purge(4, everything=True)
    assert recent.last_of(("product:9",)) is None


def test_the_memory_is_bounded_in_purges_and_in_tags() -> None:
    """A thousand purges, or fewer where they name very many tags; the last one is always known."""
    recent = RecentPurges()
    for seq in range(3000):
        recent.add(purge(seq, "a"))
    assert len(recent) == 1000
    for seq in range(3000, 3010):
        recent.add(purge(seq, *(f"t{number}" for number in range(40_000))))
    assert len(recent) == 1
    last = recent.last_of(("t7",))
    assert last is not None
    assert last.seq == 3009


def test_what_is_shown_of_a_target_is_one_bounded_line() -> None:
    """No control character, no secret value, and never more than about two thousand characters."""
    assert shown_target("/a b\n", [("q", "x y"), ("token", "s")], ["token"]) == "/a%20b%0A?q=x%20y&token=***"
    assert len(shown_target("/" + "é" * 5000, [("q", "x" * 9000)], [])) < 2100
