"""Being in touch with the purge log, or not: what is known of it, and how it is told."""

from __future__ import annotations

import logging

__all__ = ["Touch"]

logger = logging.getLogger("fastapi_cacheinval.bus")

_FIRST_PAUSE = 0.05
_LONGEST_PAUSE = 1.0
# So many subscriptions in a row that fail are no accident.
_WORTH_SAYING = 4


class Touch:
    """`connected` is None before the first word from the log; `bound` is the length of a lease in seconds."""

    __slots__ = ("_bound", "_failures", "_pause", "connected", "failed")

    def __init__(self, bound: float) -> None:
        self._bound = bound
        self.connected: bool | None = None
        # Whether the last call failed.
        self.failed = False
        self._pause = _FIRST_PAUSE
        self._failures = 0

    def pause(self) -> float:
        """For how long to leave it alone after a failure, in seconds; longer each time."""
        pause = self._pause
        self._pause = min(pause * 2, _LONGEST_PAUSE, self._bound / 3)
        return pause

    def lost(self, reason: str) -> None:
        """A call failed."""
        self.failed = True
        if self.connected is not False:
            self.connected = False
            logger.warning(
                "out of touch with the purge log (%s): responses are kept for their first %g s only, purges are queued",
                reason,
                self._bound,
                extra={"cacheinval.connected": False, "cacheinval.reason": reason},
            )

    def found(self) -> None:
        """A call was answered."""
        self.failed, self._pause = False, _FIRST_PAUSE
        if self.connected is False:
            logger.warning("in touch with the purge log again", extra={"cacheinval.connected": True})
        self.connected = True

    def heard(self) -> None:
        """The subscription gave a sign of life."""
        self._failures = 0

    def deaf(self, reason: str) -> None:
        """The subscription ended."""
        logger.debug("the subscription ended: %s", reason)
        if not self.connected:
            # That is what has been said.
            self._failures = 0
            return
        self._failures += 1
        if self._failures == _WORTH_SAYING:
            logger.warning(
                "no subscription to the purge log (%s): what others purge is obeyed within %g s, not at once",
                reason,
                self._bound,
            )
