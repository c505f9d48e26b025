"""`Cacheinval-Token`: up to where a client's own writes have been read, so that another replica can read as far.

A token is a client's claim: it can make a replica ask its log once more, and nothing else.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from fastapi_cacheinval.core.log_types import Term
from fastapi_cacheinval.core.replica import Replica

__all__ = ["TOKEN_FIELD", "Token", "parse_token"]

TOKEN_FIELD = b"cacheinval-token"
"""The request field by which a client says how far it has read (`read_your_writes`)."""

_TOKEN = re.compile(rb"([0-9]{1,15})\.([0-9a-f]{1,32})\.([0-9]{1,15})\Z")


class Token(NamedTuple):
    """A place in the log."""

    term: Term
    seq: int

    def serialise(self) -> bytes:
        """The field's value."""
        return f"{self.term.number}.{self.term.nonce}.{self.seq}".encode()

    def ahead_of(self, replica: Replica) -> bool:
        """Whether a replica may not have read that far.

        Numbers of terms do not tell which came first: a failover may go back behind the opening of one.
        """
        return self.term != replica.term or self.seq > replica.applied


def parse_token(value: bytes) -> Token | None:
    """None for what is no token. Never raises."""
    match = _TOKEN.match(value)
    if match is None:
        return None
    number, nonce, seq = match.groups()
    return Token(Term(int(number), nonce.decode()), int(seq))
