"""Where a queue is: its URL, the region that requests are signed for, and the endpoint that is asked."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from fastapi_cacheinval import ConfigurationError

__all__ = ["Address", "address_of"]

_AWS = re.compile(
    r"(?:sqs(?:-fips)?\.(?P<region>[a-z0-9-]+)|(?:(?P<legacy>[a-z0-9-]+)\.)?queue)"
    r"\.(?:amazonaws\.com(?:\.cn)?|api\.aws|api\.amazonwebservices\.com\.cn)"
)
_PRIVATE = re.compile(r"(?:[a-z0-9-]+\.)?sqs\.(?P<region>[a-z0-9-]+)\.vpce\.amazonaws\.com(?:\.cn)?")
# Of `queue.amazonaws.com`.
_FIRST_REGION = "us-east-1"


@dataclass(frozen=True, slots=True)
class Address:
    """A queue's URL; the region, None for the one of the environment; the endpoint, None for AWS's own."""

    queue_url: str
    region: str | None
    endpoint_url: str | None

    @property
    def ordered(self) -> bool:
        """Whether the queue keeps an order in each group."""
        return self.queue_url.endswith(".fifo")

    @property
    def queue(self) -> str:
        """The queue's name."""
        return self.queue_url.rpartition("/")[2]

    @property
    def asked(self) -> str:
        """What is asked, for people."""
        return self.endpoint_url or f"SQS in {self.region or 'the region of the environment'}"


def address_of(queue_url: str, region: str | None, endpoint_url: str | None) -> Address:
    """Where a queue is; raises `ConfigurationError` for what is no URL and for a region that is not the URL's."""
    parts = _url(queue_url, "queue_url")
    if not parts.path.strip("/") or parts.query or parts.fragment:
        raise ConfigurationError(
            "queue_url is the URL that SQS gave the queue, such as https://sqs.eu-west-1.amazonaws.com/123456789012/name."
        )
    if endpoint_url is not None:
        _url(endpoint_url, "endpoint_url")
    if region is not None and (not isinstance(region, str) or not re.fullmatch(r"[a-z0-9-]+", region)):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigurationError(f"region is a name such as eu-west-1, not {region!r}.")
    aws = _AWS.fullmatch(parts.hostname or "")
    private = _PRIVATE.fullmatch(parts.hostname or "")
    if aws is None:
        # A private endpoint, or something that stands in for AWS: the queue's own host is what answers for it.
        endpoint_url = endpoint_url or f"{parts.scheme}://{parts.netloc}"
    told = aws["region"] or aws["legacy"] or _FIRST_REGION if aws else private["region"] if private else region
    if region not in (None, told):
        raise ConfigurationError(f"The queue of that queue_url is in {told}, not in {region}.")
    return Address(queue_url, told, endpoint_url)


def _url(text: str, name: str) -> SplitResult:
    try:
        parts = urlsplit(text)
        _ = parts.port
    except (ValueError, TypeError, AttributeError):
        raise ConfigurationError(f"{name} is no URL.") from None
    if not isinstance(text, str) or parts.scheme not in ("http", "https") or not parts.hostname:  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigurationError(f"{name} is a URL that begins with https:// or http://.")
    if "@" in parts.netloc:
        # Not shown: it may be a secret.
        raise ConfigurationError(f"{name} holds no credentials: those go into client_options, or the environment.")
    return parts
