"""The pauses between attempts."""

from __future__ import annotations

from fastapi_cacheinval.engine.clocks import DoublingPause


def test_each_pause_is_twice_the_last_up_to_the_longest() -> None:
    """The longest one is made for as long as the attempts fail."""
    pause = DoublingPause(0.1, 0.5)
    assert [pause.take() for _ in range(5)] == [0.1, 0.2, 0.4, 0.5, 0.5]


def test_they_begin_anew_when_an_attempt_goes_well() -> None:
    """A reset is enough, whatever came before."""
    pause = DoublingPause(0.1, 0.5)
    for _ in range(3):
        pause.take()
    pause.reset()
    pause.reset()
    assert [pause.take(), pause.take()] == [0.1, 0.2]
