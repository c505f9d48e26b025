"""What a cache steered by response headers may be told beside them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from fastapi_cacheinval.core.checks import flag
from fastapi_cacheinval.core.policy import seconds
from fastapi_cacheinval.errors import ConfigurationError

__all__ = ["HeaderOptions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderOptions:
    """The choices that RFC 9111 leaves open; `honour_headers=True` means the defaults.

    - `set_cookie`: whether a response with `Set-Cookie` is stored where it is explicitly fresh; every
      caller gets the cookie of the first then.
    - `heuristic`, `heuristic_most` (seconds): the share of the time since `Last-Modified` for which a
      response without explicit lifetime is fresh (RFC 9111 section 4.2.2), from 0 (off) to 1, and its bound.
    - `stale_if_error` (seconds): for how long a stale response stands in for a forward that failed where the
      response itself says nothing (RFC 5861 section 4); never where it forbids it.
    - `request_directives`: whether clients may ask for more than the response does (`no-cache`, `max-age`,
      `min-fresh`, `max-stale`, `stale-if-error`; section 5.2.1). `no-store` and `only-if-cached` count always.

    Raises `ConfigurationError`, naming the option.
    """

    set_cookie: bool = False
    heuristic: float = 0.1
    heuristic_most: float | timedelta = 86_400.0
    stale_if_error: float | timedelta = 0.0
    request_directives: bool = True

    def __post_init__(self) -> None:
        for name in ("set_cookie", "request_directives"):
            flag(getattr(self, name), name)
        if isinstance(self.heuristic, bool) or not isinstance(self.heuristic, int | float):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError(f"heuristic is a number from 0 to 1, not {self.heuristic!r}.")
        if not 0 <= self.heuristic <= 1:
            raise ConfigurationError(f"heuristic is a number from 0 to 1, not {self.heuristic!r}.")
        for name in ("heuristic_most", "stale_if_error"):
            object.__setattr__(self, name, seconds(getattr(self, name), name))

    @property
    def heuristic_bound(self) -> float:
        """The longest heuristic lifetime in seconds."""
        return seconds(self.heuristic_most, "heuristic_most")

    @property
    def error_seconds(self) -> float:
        """The default stale-if-error window in seconds."""
        return seconds(self.stale_if_error, "stale_if_error")
