"""What was purged before a process joined: the log's purged tags, page by page, the newest first."""

from __future__ import annotations

from typing import Any

from fastapi_cacheinval.bus.entries import decode_page
from fastapi_cacheinval.core.log_types import Page, Term
from simulation.answers import PageAnswer
from simulation.fencing import Fencing

__all__ = ["Joining"]


class Joining(Fencing):
    """A process that reads those pages after each reset."""

    # Counts the resets; what its clock is beside that of the world; a page that tells of more than has been read.
    _pages: int
    offset: float
    _unlearned: Page | None

    def ask(self) -> None:
        """Ask the log what there is."""

    def _turn_pages(self) -> None:
        self._pages += 1
        self._unlearned = None
        self._ask_page(self._pages, self.world.plan.page_limit)

    def _ask_page(self, number: int, limit: int) -> None:
        term, floor = self.replica.term, self.replica.floor
        page = (term.nonce, floor, limit)
        self.request(self.world.cluster.page, page, self._turn, self._no_page, (number, term, floor, limit))

    def _no_page(self, number: int, term: Term, up_to: int, limit: int) -> None:
        """What cannot be read is not learned."""

    def _turn(self, answer: PageAnswer | None, sent: float, number: int, term: Term, up_to: int, limit: int) -> None:
        if answer is None or number != self._pages:
            return
        members: list[Any] = []
        for (soft, tag), seq in answer.members:
            members += (b"s" if soft else b"h") + tag.encode(), seq
        page = decode_page(term, answer.seq, up_to, limit, answer.floor, members)
        if page is None:
            self._ask_page(number, 2 * limit)
        else:
            self._learn(page)

    def _learn(self, page: Page) -> None:
        world, replica = self.world, self.replica
        waited, self._unlearned = self._unlearned is page, None
        taken = replica.apply_page(page, world.now + self.offset)
        if world.trace is not None:
            world.tell(self.name, f"{'learned' if taken else 'refused'} {page}")
        world.counts["pages learned" if taken else "pages refused"] += 1
        if taken and page.purged:
            self._ask_page(self._pages, world.plan.page_limit)
        elif page.term == replica.term and page.seq > replica.applied and not waited:
            # To be learned as soon as all that the log had by then has been read.
            self._unlearned = page
            self.ask()
