"""What a source is set to, checked when it is made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from fastapi_cacheinval import ConfigurationError

__all__ = ["Options", "checked"]

_OF_A_CLIENT = frozenset({
    "api_version",
    "aws_access_key_id",
    "aws_account_id",
    "aws_secret_access_key",
    "aws_session_token",
    "config",
    "use_ssl",
    "verify",
})  # fmt: skip
_MOST_POLLS = 100


@dataclass(frozen=True, slots=True, repr=False)
class Options:
    """Numbers, and what goes to the client: it may hold credentials, and is not shown."""

    wait_seconds: int
    visibility_timeout: int
    batch: int
    concurrency: int
    client_options: Mapping[str, Any]


def checked(
    *,
    wait_seconds: int,
    visibility_timeout: int,
    batch: int,
    concurrency: int,
    client_options: Mapping[str, Any] | None,
    tags: object,
) -> Options:
    """The options; raises `ConfigurationError` for one that cannot work."""
    if tags is not None and not callable(tags):
        raise ConfigurationError(f"tags is a function of a message, not {type(tags).__name__}.")
    return Options(
        wait_seconds=_whole("wait_seconds", wait_seconds, 0, 20),
        # With 0 a message would be handed out to others while it is worked on.
        visibility_timeout=_whole("visibility_timeout", visibility_timeout, 1, 43_200),
        batch=_whole("batch", batch, 1, 10),
        concurrency=_whole("concurrency", concurrency, 1, _MOST_POLLS),
        client_options=_of_a_client(client_options),
    )


def _whole(name: str, value: object, least: int, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ConfigurationError(f"{name} is a whole number from {least} to {most}, not {value!r}.")
    return value


def _of_a_client(given: object) -> Mapping[str, Any]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise ConfigurationError("client_options is a mapping of what aiobotocore's create_client takes.")
    options = dict(cast("Mapping[str, Any]", given))
    # Values are not shown: they may be secrets.
    unknown = sorted(map(str, options.keys() - _OF_A_CLIENT))
    if unknown:
        raise ConfigurationError(
            f"client_options has {', '.join(unknown)}; they may have {', '.join(sorted(_OF_A_CLIENT))}."
        )
    return options
