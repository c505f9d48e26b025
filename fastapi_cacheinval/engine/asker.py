"""The questions that the collapsing loop asks of each request, under a policy and by headers."""

from __future__ import annotations

from typing import Protocol

from fastapi_cacheinval.core.decide import Decision
from fastapi_cacheinval.core.stored import StoredResponse
from fastapi_cacheinval.grammar.fields import RawHeaders

__all__ = ["Asker"]


class Asker(Protocol):
    """A request, as the loop sees it. All of its methods answer at once."""

    @property
    def l2_key(self) -> bytes:
        """The key under which L2 is asked."""
        ...

    @property
    def asked_headers(self) -> RawHeaders:
        """The request fields that select a variant."""
        ...

    @property
    def entered(self) -> float:
        """When the request came, on the cache's clock."""
        ...

    @property
    def deadline(self) -> float:
        """Until when the request may wait, on the cache's clock."""
        ...

    def find(self) -> tuple[StoredResponse | None, bytes, bool]:
        """What is stored for the request, the key of its forward, and whether only `Vary` missed."""
        ...

    def judge(self, stored: StoredResponse | None) -> Decision:
        """What a stored response is good for, now."""
        ...

    def may_wait(self, stored: StoredResponse | None) -> bool:
        """Whether another's forward would do for this request, and this one's for others."""
        ...

    def fenced(self) -> bool:
        """Whether a purge without a number forbids to use what others have forwarded."""
        ...

    def overtaken(self) -> bool:
        """Whether something was purged since the request entered."""
        ...

    async def client_left(self) -> bool:
        """Whether the client is known to have left. A refresh has none, and none leaves."""
        ...

    def stands_in(self, stored: StoredResponse) -> bool:
        """Whether a stored response may stand in for a forward that failed."""
        ...

    def order_forward(self, key: bytes) -> bool:
        """Have the request forwarded once more in the background, as the leader of the key; whether it is."""
        ...
