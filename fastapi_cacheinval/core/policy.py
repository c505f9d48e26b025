"""Cache policies: how long a route's responses are kept, for whom, and what they are tagged with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import timedelta
from typing import Any, TypedDict

from fastapi_cacheinval.core.checks import flag, number, seconds, unknown
from fastapi_cacheinval.core.conditional import OF_ONE_REQUEST
from fastapi_cacheinval.core.partition_by import PartitionBy, unaliased
from fastapi_cacheinval.core.should_store import ShouldStore, checked_predicate
from fastapi_cacheinval.core.tags import TagTemplate
from fastapi_cacheinval.core.unchanging import FrozenMapping, Unchanging
from fastapi_cacheinval.errors import ConfigurationError
from fastapi_cacheinval.grammar.fields import is_token

__all__ = ["CachePolicy", "PolicyFields"]


def _copied(value: Any) -> Any:
    """The statuses as they were written, apart from what they were made from."""
    # Kept as Any beside the narrowing: what is in it is checked later.
    given: Any = value
    if isinstance(value, Mapping):
        return FrozenMapping(dict(given))
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        return tuple(given)
    raise ConfigurationError(f"statuses is a set, or a mapping of status to ttl, not {value!r}.")


def _lifetimes(given: Any, ttl: float) -> Mapping[int, float]:
    for code in given:
        if isinstance(code, bool) or not isinstance(code, int) or not 200 <= code <= 599:
            raise ConfigurationError(f"statuses holds codes from 200 to 599, not {code!r}.")
        if code == 206 or code in OF_ONE_REQUEST:
            raise ConfigurationError(f"A {code} answers one request alone and is never stored.")
    if not given:
        raise ConfigurationError("statuses must name at least one status.")
    table: Any = given
    if isinstance(given, Mapping):
        return FrozenMapping({code: seconds(life, f"statuses[{code!r}]") for code, life in table.items()})
    return FrozenMapping(dict.fromkeys(table, ttl))


def _tags(value: Any) -> tuple[Any, ...]:
    given: Any = value
    if isinstance(value, str):
        raise ConfigurationError(f"tags is a list of tags, not one str: write [{value!r}].")
    if not isinstance(value, Iterable):
        raise ConfigurationError(f"tags is a list of tags, not {given!r}.")
    return tuple(given)


def _dependencies(value: Any, name: str) -> tuple[Any, ...]:
    """Covers as a tuple of callables or of FastAPI's `Depends` and `Security` markers."""
    if value is None:
        return ()
    given: Any = value
    covers = tuple(unaliased(cover) for cover in (given if isinstance(value, tuple | list) else (given,)))
    for cover in covers:
        if isinstance(cover, PartitionBy):
            if name != "partition_by":
                call = getattr(cover.dependency, "dependency", cover.dependency)
                write = f"{name}={getattr(call, '__name__', '...')}"
                raise ConfigurationError(f"{name} keeps no value, so it takes no PartitionBy: write {write}.")
        elif not callable(getattr(cover, "dependency", cover)):
            raise ConfigurationError(f"{name} takes dependencies (callables or Depends), not {cover!r}.")
    return covers


# Values of these are credentials whatever the author says: the variant would hold them, and a hit would not check them.
_NEVER_VARIED = frozenset({"authorization", "cookie", "proxy-authorization"})


def _field_names(value: Any) -> tuple[str, ...]:
    """Names of request header fields, in lower case, each once."""
    given: Any = value
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise ConfigurationError(f"vary is a list of names of request header fields, not {given!r}.")
    names: list[str] = []
    for name in given:
        if not isinstance(name, str) or not is_token(name.encode("utf-8", "replace")):
            raise ConfigurationError(f"vary holds names of request header fields, not {name!r}.")
        lower = name.lower()
        if lower == "*":
            raise ConfigurationError(
                "vary names single header fields, and '*' is none: name those that the response depends on."
            )
        if lower in _NEVER_VARIED:
            raise ConfigurationError(
                f"vary cannot name {name!r}, which holds credentials: take it in a dependency, and name that in "
                "partition_by or guarded_by."
            )
        if lower == "range" or lower.startswith("if-"):
            raise ConfigurationError(f"vary cannot name {name!r}: the cache answers it itself.")
        names.append(lower)
    return tuple(dict.fromkeys(names))


class PolicyFields(TypedDict, total=False):
    """The fields of a `CachePolicy`, as `cached()` takes them."""

    ttl: float | timedelta
    stale_while_revalidate: float | timedelta
    stale_if_error: float | timedelta
    tags: Iterable[str]
    partition_by: Any
    guarded_by: Any
    shared: bool | None
    jitter: float
    early_refresh: float
    statuses: Iterable[int] | Mapping[int, float | timedelta]
    cache_control: str | None
    downstream_ttl: float | timedelta | None
    vary: Iterable[str]
    request_is_shared: bool
    ttl_from_response: bool
    should_store: ShouldStore | None
    soft_timeout: float | timedelta | None
    hard_timeout: float | timedelta | None


@dataclass(frozen=True, kw_only=False)
class CachePolicy(Unchanging):
    """What is kept of a route and for how long; frozen, checked when made.

    Durations are seconds as a number, or a `timedelta`, from 0 to ten years.

    - `ttl`: the freshness lifetime in this cache (RFC 9111 section 4.2); 0 switches caching off.
    - `stale_while_revalidate`, `stale_if_error`: for how long after it a stale response may be served
      while one background refresh runs, or when the forward fails (RFC 5861).
    - `tags`: templates; path and declared query parameters stand in braces.
    - `partition_by`: a dependency, an `Annotated` alias of one, a `PartitionBy` or several; one stored response per
      value.
    - `guarded_by`: a dependency or several that run on every request; what passes shares one response.
    - `shared`: True is the author's word that the response is the same for all.
    - `jitter`: from 0 to 1; the lifetime is `ttl` times a draw from [1 - jitter, 1].
    - `early_refresh`: XFetch's beta (Vattani et al., 2015), from 0 (off) to 100.
    - `statuses`: which are stored, as a set, or as a mapping of status to its own `ttl`.
    - `cache_control`: what browsers and other downstream caches are told, where the handler sets no `Cache-Control`.
      Its `max-age` and `s-maxage` count from each answer, and end with the response's own freshness unless longer.
    - `downstream_ttl`: for how long a CDN that is purged (`CacheMiddleware(downstream=…)`) may keep what it is handed,
      from then on; None for as long as it is fresh here, 0 not at all. Responses of 400 and over keep their own.
    - `vary`: names of request header fields; one stored response per value (RFC 9111 section 4.1). It is also the
      author's word that a `Header()` of the handler whose name looks like a credential is none, so that a hit may
      skip what the handler does with it.
    - `request_is_shared`: True is the author's word that what the handler makes of the raw `Request` is the same
      for all who share a stored response. A dependency that takes it still runs on every request, as a cover, and its
      value is in the key unless it plainly asks for nothing but the URL or the app.
    - `ttl_from_response`: True lets a response shorten its own lifetime by `s-maxage` or `max-age` in its
      `Cache-Control`, less its `Age`; it never lengthens it. With 0 the response is not stored.
    - `should_store`: a plain function of a complete `ResponseToStore`, asked for what may be stored otherwise; False
      stores nothing. It runs on the event loop. An error in it stores nothing either, and is logged once.
    - `soft_timeout`: past it a request that still waits for the handler is answered with the stale response at hand,
      if `stale_if_error` allows that one; the handler goes on, and what it answers is stored. None is never.
    - `hard_timeout`: past it the request is answered so, or with 504; the handler goes on here too.

    Raises `ConfigurationError`, naming the field.
    """

    ttl: float | timedelta
    stale_while_revalidate: float | timedelta = 0.0
    stale_if_error: float | timedelta = 0.0
    tags: Iterable[str] = ()
    partition_by: Any = None
    guarded_by: Any = None
    shared: bool | None = None
    jitter: float = 0.1
    early_refresh: float = 1.0
    statuses: Iterable[int] | Mapping[int, float | timedelta] = frozenset({200})
    cache_control: str | None = None
    downstream_ttl: float | timedelta | None = None
    vary: Iterable[str] = ()
    request_is_shared: bool = False
    ttl_from_response: bool = False
    should_store: ShouldStore | None = None
    soft_timeout: float | timedelta | None = None
    hard_timeout: float | timedelta | None = None
    soft_seconds: float | None = field(init=False, repr=False, compare=False)
    hard_seconds: float | None = field(init=False, repr=False, compare=False)
    templates: tuple[TagTemplate, ...] = field(init=False, repr=False, compare=False)
    lifetimes: Mapping[int, float] = field(init=False, repr=False, compare=False)
    stale_seconds: float = field(init=False, repr=False, compare=False)
    error_seconds: float = field(init=False, repr=False, compare=False)
    downstream_seconds: float | None = field(init=False, repr=False, compare=False)
    partition: tuple[Callable[..., Any] | Any, ...] = field(init=False, repr=False, compare=False)
    partition_keys: tuple[Callable[[Any], object] | None, ...] = field(init=False, repr=False, compare=False)
    guards: tuple[Callable[..., Any] | Any, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        put = object.__setattr__
        for name in ("ttl", "stale_while_revalidate", "stale_if_error"):
            put(self, name, seconds(getattr(self, name), name))
        put(self, "stale_seconds", seconds(self.stale_while_revalidate, "stale_while_revalidate"))
        put(self, "error_seconds", seconds(self.stale_if_error, "stale_if_error"))
        given = self.downstream_ttl
        put(self, "downstream_ttl", None if given is None else seconds(given, "downstream_ttl"))
        put(self, "downstream_seconds", self.downstream_ttl)
        put(self, "jitter", number(self.jitter, "jitter", 1))
        put(self, "early_refresh", number(self.early_refresh, "early_refresh", 100))
        put(self, "tags", _tags(self.tags))
        put(self, "templates", tuple(TagTemplate.parse(tag) for tag in self.tags))
        statuses = _copied(self.statuses)
        put(self, "lifetimes", _lifetimes(statuses, seconds(self.ttl, "ttl")))
        put(self, "statuses", statuses if isinstance(statuses, Mapping) else frozenset(statuses))
        partition = _dependencies(self.partition_by, "partition_by")
        keyed = [each if isinstance(each, PartitionBy) else None for each in partition]
        put(self, "partition", tuple(c if k is None else k.dependency for c, k in zip(partition, keyed, strict=True)))
        put(self, "partition_keys", tuple(None if each is None else each.key for each in keyed))
        put(self, "vary", _field_names(self.vary))
        flag(self.ttl_from_response, "ttl_from_response")
        put(self, "should_store", checked_predicate(self.should_store))
        put(self, "guards", _dependencies(self.guarded_by, "guarded_by"))
        shared: Any = self.shared
        # By identity: 1 equals True, and is nobody's word.
        if not any(shared is value for value in (None, True, False)):
            raise ConfigurationError(f"shared is True, False or None, not {shared!r}.")
        flag(self.request_is_shared, "request_is_shared")
        if self.shared and self.partition:
            raise ConfigurationError("shared=True and partition_by contradict each other: keep one.")
        self._check_cache_control()
        self._check_timeouts()

    def _check_timeouts(self) -> None:
        put = object.__setattr__
        for name in ("soft", "hard"):
            given = getattr(self, f"{name}_timeout")
            put(self, f"{name}_seconds", None if given is None else seconds(given, f"{name}_timeout"))
            if given is not None and not getattr(self, f"{name}_seconds"):
                raise ConfigurationError(f"{name}_timeout is more than 0 seconds; None, the default, is never.")
        soft, hard = self.soft_seconds, self.hard_seconds
        if soft is not None and not self.error_seconds:
            raise ConfigurationError("soft_timeout gives what stale_if_error allows: set stale_if_error=3600 too.")
        if soft is not None and hard is not None and hard < soft:
            raise ConfigurationError(f"hard_timeout must not be shorter than soft_timeout: {hard:g} s, {soft:g} s.")

    def _check_cache_control(self) -> None:
        text = self.cache_control
        if text is None:
            return
        if not isinstance(text, str) or not text.strip() or not (text.isascii() and text.isprintable()):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError(f"cache_control is the text of a Cache-Control field, not {text!r}.")

    @property
    def active(self) -> bool:
        """Whether anything can be stored under it."""
        return bool(self.ttl) and any(life > 0 for life in self.lifetimes.values())

    @classmethod
    def build(cls, policy: CachePolicy | None, changes: Mapping[str, Any]) -> CachePolicy:
        """The policy with some fields replaced and the tags united; `ConfigurationError` without any `ttl`."""
        known = {item.name for item in fields(cls) if item.init}
        for name in changes:
            if name not in known:
                raise unknown("CachePolicy has no field", name, known)
        if policy is None:
            if "ttl" not in changes:
                raise ConfigurationError("cached() needs a CachePolicy or a ttl.")
            return cls(**changes)
        if not isinstance(policy, cls):
            raise ConfigurationError(f"cached() takes a CachePolicy, not {policy!r}; name the fields: ttl=60.")
        if not changes:
            return policy
        merged = dict(changes)
        if "tags" in merged:
            named = (TagTemplate.parse(tag).text for tag in _tags(merged["tags"]))
            merged["tags"] = tuple(dict.fromkeys((*policy.tags, *named)))
        # A new ttl must reach the statuses that had no ttl of their own.
        return replace(policy, **merged)
