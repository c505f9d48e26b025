"""Being in touch with the purge log, or not: what is known of it, and how it is told."""

from __future__ import annotations

import logging
from math import inf

from fastapi_cacheinval.core.log_types import Term
from fastapi_cacheinval.engine.clocks import DoublingPause
from fastapi_cacheinval.engine.log_observer import MEANT, LogObserver, Outage
from fastapi_cacheinval.engine.log_once import Seldom
from fastapi_cacheinval.ports.clock import Clock

__all__ = ["FIRST_PAUSE", "LONGEST_PAUSE", "Touch"]

logger = logging.getLogger("fastapi_cacheinval.bus")

# Seconds between attempts at a log that is out of reach.
FIRST_PAUSE = 0.05
LONGEST_PAUSE = 1.0
# So many subscriptions in a row that fail are no accident.
_WORTH_SAYING = 4


class Touch:
    """`connected` is None before the first word from the log; `bound` is the length of a lease in seconds.

    `delivered` counts the queued purges that are written, from the loss of the log until its return is told.
    """

    __slots__ = (
        "_bound",
        "_clock",
        "_failures",
        "_heard",
        "_observer",
        "_outage",
        "_pause",
        "_seldom",
        "_seldom_reset",
        "connected",
        "delivered",
        "failed",
    )

    def __init__(self, observer: LogObserver, clock: Clock, *, bound: float) -> None:
        self._observer = observer
        self._clock = clock
        self._bound = bound
        # Since the log was lost, until what that held up is done.
        self._outage: Outage | None = None
        self.delivered = 0
        # A log that comes and goes is said to do so three times, and then twice a minute.
        self._seldom = Seldom(3, 30.0)
        self._seldom_reset = Seldom(3, 30.0)
        self.connected: bool | None = None
        # Whether the last call failed.
        self.failed = False
        self._pause = DoublingPause(FIRST_PAUSE, min(LONGEST_PAUSE, bound / 3))
        self._failures = 0
        self._heard = -inf

    def pause(self) -> float:
        """For how long to leave it alone after a failure, in seconds; longer each time."""
        return self._pause.take()

    def lost(self, reason: str) -> None:
        """A call failed."""
        self.failed = True
        if self.connected is not False:
            self._observer.connection(connected=False, cause=reason)
        self.connected = False
        if self._outage is None:
            self._outage = Outage(self._clock.now())
            self.delivered = 0
        if not self._outage.said and self._seldom.may(self._clock.now()):
            self._outage.said = True
            logger.warning(
                "out of touch with the purge log (%s): responses are kept for their first %g s only, purges are queued."
                " Check that the server can be reached; cacheinval doctor says more.",
                reason,
                self._bound,
                extra={"cacheinval.connected": False, "cacheinval.cause": reason},
            )

    def found(self) -> None:
        """A call was answered."""
        if not self.connected:
            self._observer.connection(connected=True)
        self.failed, self.connected = False, True
        self._pause.reset()

    def returned(self) -> None:
        """Say once of an outage that all which it held up has been read and written."""
        outage, self._outage = self._outage, None
        if outage is not None:
            now = self._clock.now()
            if outage.gave_up and not outage.said:
                # A reset is told at the same level with an outage and without one.
                outage.said = self._seldom_reset.may(now)
            outage.log(now, self.delivered)

    def gave_up(self, cause: str, term: Term) -> None:
        """Everything that was kept is given up, because of what `cause_of` names."""
        self._observer.reset(term.number, cause)
        if self._outage is not None:
            self._outage.gave_up = True
        elif cause != "start":
            logger.log(
                logging.WARNING if self._seldom_reset.may(self._clock.now()) else logging.DEBUG,
                "everything that was kept is given up: %s (term %d)",
                MEANT[cause],
                term.number,
                extra={"cacheinval.cause": cause, "cacheinval.term": term.number},
            )

    def heard(self) -> None:
        """The subscription gave a sign of life."""
        self._failures = 0
        self._heard = self._clock.now()

    def rest(self) -> float:
        """Seconds from one question to the next; more of them while messages come, which show that the log is there.

        A question that fails can still be asked once more within the lease.
        """
        return (0.45 if self._clock.now() - self._heard < self._bound / 3 else 1 / 3) * self._bound

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
