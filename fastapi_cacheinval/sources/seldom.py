"""A log line at once, and then one a minute with the count of those that were left out."""

from __future__ import annotations

import logging

from fastapi_cacheinval.ports.clock import Alarm, Clock

__all__ = ["OnceAMinute"]

_MINUTE = 60.0


class OnceAMinute:
    """Errors for a log, of which a flood is one line a minute; all calls are of one event loop."""

    def __init__(self, logger: logging.Logger, clock: Clock) -> None:
        self._logger = logger
        self._clock = clock
        self._alarm: Alarm | None = None
        self._left_out = 0
        self._last = ""

    def tell(self, text: str) -> None:
        """Log it, or count it where another was logged within the last minute."""
        if self._alarm is None:
            self._logger.error("%s", text)
            self._alarm = self._clock.call_later(_MINUTE, self._minute_over)
        else:
            self._left_out += 1
            self._last = text

    def _minute_over(self) -> None:
        # What comes in the next minute is counted if there was something to tell of this one.
        self._alarm = self._clock.call_later(_MINUTE, self._minute_over) if self._left_out else None
        self._tell_left_out()

    def _tell_left_out(self) -> None:
        if self._left_out:
            self._logger.error(
                "%d more like that since the last such line, of which the last: %s", self._left_out, self._last
            )
        self._left_out, self._last = 0, ""

    def close(self) -> None:
        """Log what was left out so far."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        self._tell_left_out()
