"""What a call to Redis raises, and what kinds of failure there are."""

from __future__ import annotations

from ssl import SSLError

from redis.exceptions import ClusterDownError, MasterDownError, ReadOnlyError, ResponseError

__all__ = ["Away", "Misplaced", "Unconfirmed", "is_final", "reason_of"]


class Unconfirmed(ResponseError):
    """Too few replicas of the server have acknowledged in time what was written to it."""


class Misplaced(Exception):
    """A connection has given the reply to another call, so that nothing it says can be believed."""


_ELSEWHERE = (ClusterDownError, MasterDownError, ReadOnlyError, Unconfirmed)


class Away(Exception):
    """Redis could not be reached, or refused; `reason` is for people."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


def is_final(error: Exception) -> bool:
    """Whether another connection would change nothing: the right server has refused what it was asked.

    One that is a replica, or has lost its replicas, may have been replaced by another.
    """
    if not isinstance(error, ResponseError):
        return False
    return not isinstance(error, _ELSEWHERE) and not str(error).startswith("NOREPLICAS")


def reason_of(error: BaseException) -> str:
    """What to say of an error: the server's own word, or what kind of silence it is."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, SSLError):
        cause = cause.__cause__ or cause.__context__
    # What is wrong with a certificate is not always repeated in the client's own error.
    text = str(cause or error).strip().partition("\n")[0]
    if text.startswith("HELLO must be called"):
        # How a server says it whose client has begun with the newer protocol.
        return "Authentication required"
    return text[:200] or type(error).__name__
