"""What a cache steered by response headers may be told beside them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from fastapi_cacheinval.core.checks import flag, number, seconds
from fastapi_cacheinval.core.stars import fits
from fastapi_cacheinval.errors import ConfigurationError

__all__ = ["HeaderOptions", "HeaderRule"]


@dataclass(frozen=True, slots=True)
class HeaderRule:
    """What an operator knows of the responses under some paths.

    - `ttl` (seconds): the lifetime of a response that states none; 0 assumes nothing, not even from `Last-Modified`.
    - `override`: the lifetime of every response there, whatever `Cache-Control`, `Expires` and the fields for CDNs say,
      `no-store` and `private` included; with a `ttl` of 0 nothing is stored there. Errors, `Set-Cookie`, `Vary: *` and
      requests with `Authorization` are treated as without it.

    Raises `ConfigurationError`.
    """

    ttl: float | timedelta
    override: bool = False

    def __post_init__(self) -> None:
        flag(self.override, "override")
        object.__setattr__(self, "ttl", seconds(self.ttl, "ttl"))

    @property
    def lifetime(self) -> float:
        """The lifetime in seconds."""
        return seconds(self.ttl, "ttl")


_NOTHING = HeaderRule(0, override=True)
# Where an app may see another path: servers resolve these in ways that differ.
_UNCLEAR = re.compile(r"/\.{0,2}(?=/)|/\.{1,2}$|[\\;?#\x00-\x1f\x7f]|%[0-9A-Fa-f]{2}")


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderOptions:
    """The choices that RFC 9111 leaves open; `honour_headers=True` means the defaults.

    - `set_cookie`: whether a response with `Set-Cookie` is stored where it is explicitly fresh; every
      caller gets the cookie of the first then.
    - `heuristic`, `heuristic_most` (seconds): the share of the time since `Last-Modified` for which a
      response without explicit lifetime is fresh (RFC 9111 section 4.2.2), from 0 (off) to 1, and its bound. Nothing is
      guessed for what the code of a FastAPI or Starlette app answers, but for files that it mounts as `StaticFiles`; a
      request with a cookie or another credential needs the response's own word.
    - `stale_if_error` (seconds): for how long a stale response stands in for a forward that failed where the
      response itself says nothing (RFC 5861 section 4); never where it forbids it.
    - `request_directives`: whether clients may ask for more than the response does (`no-cache`, `max-age`,
      `min-fresh`, `max-stale`, `stale-if-error`; section 5.2.1). `no-store` and `only-if-cached` count always.

    - `default_ttl` (seconds): the lifetime of a successful response or redirect that states none, in place of what
      `heuristic` gives, and within the same limits.
    - `rules`: pairs of a path, in which `*` stands for any text, and a lifetime or a `HeaderRule`; the first that fits
      holds, in place of `default_ttl`, for what code answers as well. It does not hold for requests with a cookie or
      another credential, nor against what a FastAPI route declares of its caller. Paths are decoded, and without the
      root path. Where there are rules, nothing is kept of a path with a segment that is empty, `.` or `..`, with a
      backslash, `;`, `?`, `#`, a control character or another escape in it: the app may take it for another path.

    Raises `ConfigurationError`, naming the option.
    """

    set_cookie: bool = False
    heuristic: float = 0.1
    heuristic_most: float | timedelta = 86_400.0
    stale_if_error: float | timedelta = 0.0
    request_directives: bool = True
    default_ttl: float | timedelta | None = None
    rules: Iterable[tuple[str, float | timedelta | HeaderRule]] = ()
    _patterns: tuple[tuple[list[str], HeaderRule], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.default_ttl is not None:
            object.__setattr__(self, "default_ttl", seconds(self.default_ttl, "default_ttl"))
        rules = tuple(_rule(each) for each in _listed(self.rules))
        object.__setattr__(self, "rules", rules)
        object.__setattr__(self, "_patterns", tuple((path.split("*"), rule) for path, rule in rules))
        for name in ("set_cookie", "request_directives"):
            flag(getattr(self, name), name)
        number(self.heuristic, "heuristic", 1)
        for name in ("heuristic_most", "stale_if_error"):
            object.__setattr__(self, name, seconds(getattr(self, name), name))

    def rule_for(self, path: str) -> HeaderRule | None:
        """The rule that holds for a decoded path without the root path."""
        if self._patterns and _UNCLEAR.search(path):
            return _NOTHING
        return next((rule for parts, rule in self._patterns if fits(parts, path)), None)

    def assumed(self, rule: HeaderRule | None) -> float | None:
        """The lifetime of a response that states none, in seconds; None where only its own fields can tell."""
        if rule is not None:
            return rule.lifetime
        return None if self.default_ttl is None else seconds(self.default_ttl, "default_ttl")

    @property
    def heuristic_bound(self) -> float:
        """The longest heuristic lifetime in seconds."""
        return seconds(self.heuristic_most, "heuristic_most")

    @property
    def error_seconds(self) -> float:
        """The default stale-if-error window in seconds."""
        return seconds(self.stale_if_error, "stale_if_error")


def _listed(rules: Any) -> list[Any]:
    if isinstance(rules, str | bytes | dict) or not isinstance(rules, Iterable):
        raise ConfigurationError(
            f'rules are pairs of a path and a lifetime, rules=[("/static/*", 3600)], not {rules!r}.'
        )
    return list(rules)  # pyright: ignore[reportUnknownArgumentType,reportUnknownVariableType]


def _rule(given: Any) -> tuple[str, HeaderRule]:
    if not isinstance(given, tuple) or len(given) != 2:  # pyright: ignore[reportUnknownArgumentType]
        raise ConfigurationError(f'a rule is a pair of a path and a lifetime, ("/static/*", 3600), not {given!r}.')
    path, rule = given  # pyright: ignore[reportUnknownVariableType]
    if not isinstance(path, str) or not path.startswith(("/", "*")):
        raise ConfigurationError(f"the path of a rule begins with a slash or is {'*'!r}, not {path!r}.")
    return path, rule if isinstance(rule, HeaderRule) else HeaderRule(rule)  # pyright: ignore[reportUnknownArgumentType]
