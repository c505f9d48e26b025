"""What went wrong with SQS, in words that say what to do and hold nothing of a request."""

from __future__ import annotations

from typing import Any

from fastapi_cacheinval import CacheinvalError
from fastapi_cacheinval.contrib.sqs.addresses import Address

__all__ = ["QueueUnavailable", "unavailable"]

# By the names of botocore's classes, from the special to the general.
_BY_CLASS = {
    "NoCredentialsError": "no credentials were found",
    "PartialCredentialsError": "the credentials are incomplete",
    "CredentialRetrievalError": "the credentials could not be had from where they are kept",
    "TokenRetrievalError": "the token for the credentials could not be had",
    "UnauthorizedSSOTokenError": "the SSO session for the credentials has ended",
    "ProfileNotFound": "the profile for the credentials does not exist",
    "NoRegionError": "no region is set: give region=, or AWS_DEFAULT_REGION",
    "SSLError": "the certificate of {asked} is not trusted, or it speaks no TLS",
    "ProxyConnectionError": "the proxy on the way to {asked} cannot be reached",
    "ConnectTimeoutError": "{asked} cannot be reached",
    "EndpointConnectionError": "{asked} cannot be reached",
    "ReadTimeoutError": "{asked} did not answer in time",
    "ConnectionClosedError": "{asked} closed the connection",
    "HTTPClientError": "the connection to {asked} failed",
}
_REFUSED = frozenset({
    "ExpiredToken",
    "ExpiredTokenException",
    "IncompleteSignature",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "InvalidSecurity",
    "MissingAuthenticationToken",
    "OptInRequired",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
})  # fmt: skip
_DENIED = (
    "AccessDenied",
    "AccessDeniedException",
    "KMS.AccessDeniedException",
    "NotAuthorized",
    "UnauthorizedOperation",
)


class QueueUnavailable(CacheinvalError):
    """SQS refused a call, or could not be reached; its text has no credentials and nothing of a message.

    `code` is the one that SQS gave, or the name of the client's error; `denied` is whether the call is not allowed.
    """

    def __init__(self, text: str, *, code: str, denied: bool = False) -> None:
        super().__init__(text)
        self.code = code
        self.denied = denied


def unavailable(error: BaseException, call: str, address: Address) -> QueueUnavailable:
    """The error of a client in our words; what AWS writes beside its codes may quote a request, so it is left out."""
    code = _code(error)
    if code:
        return QueueUnavailable(_said(code, call, address), code=code, denied=code in _DENIED)
    for kind in type(error).__mro__:
        if kind.__name__ in _BY_CLASS:
            return QueueUnavailable(
                f"{call}: {_BY_CLASS[kind.__name__].format(asked=address.asked)}", code=kind.__name__
            )
    return QueueUnavailable(f"{call}: {type(error).__name__} at {address.asked}", code=type(error).__name__)


def _code(error: BaseException) -> str:
    response: Any = getattr(error, "response", None)
    try:
        return str(response["Error"]["Code"])
    except (TypeError, KeyError):
        return ""


def _said(code: str, call: str, address: Address) -> str:
    if code in ("AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist", "InvalidAddress"):
        return (
            f"{call}: there is no queue {address.queue} at {address.asked} ({code}): check its name, account and region"
        )
    if code in _REFUSED:
        return f"{call}: the credentials are refused ({code})"
    if code in _DENIED:
        return f"{call}: the credentials do not allow it: they need sqs:{call} on {address.queue} ({code})"
    return f"{call}: {address.asked} answered {code}"
