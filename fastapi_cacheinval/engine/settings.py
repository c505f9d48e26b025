"""The settings of one cache, checked when they are made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import Any, Literal, TypedDict

from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import TracerProvider

from fastapi_cacheinval.core.checks import flag, is_utf8, seconds, unknown
from fastapi_cacheinval.errors import ConfigurationError

__all__ = ["Options", "Settings", "misplaced"]

_KIB = 1024
_MIB = 1024 * _KIB

_DURATIONS = (
    "staleness_bound",
    "stale_when_disconnected",
    "collapse_timeout",
    "refresh_timeout",
    "hold_timeout",
    "redis_timeout",
)
_COUNTS = {
    "l1_max_bytes": 64 * _KIB,
    "max_body_bytes": 1,
    "max_in_flight_bytes": 0,
    "max_variants": 1,
    "max_refreshes": 1,
    "hold_max_bytes": 0,
    "confirm_replicas": 0,
}


class Options(TypedDict, total=False):
    """What an `HTTPCache` may be made with, as it is written; `Settings` says what each is."""

    namespace: str
    version: str
    l1_max_bytes: int
    max_body_bytes: int
    max_in_flight_bytes: int
    staleness_bound: float | timedelta
    stale_when_disconnected: float | timedelta
    mutations_when_disconnected: Literal["queue", "refuse"]
    path_purges: bool | Literal["target"]
    secret: str | bytes | None
    collapse_timeout: float | timedelta
    max_variants: int
    read_your_writes: bool
    max_refreshes: int
    refresh_timeout: float | timedelta
    hold_timeout: float | timedelta
    hold_max_bytes: int
    redis_timeout: float | timedelta
    confirm_replicas: int
    shadow: float
    tracer_provider: TracerProvider | None
    meter_provider: MeterProvider | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What an `HTTPCache` is made with; durations are seconds, sizes are bytes.

    - `namespace`, `version`: part of every cache key; caches that differ in them share nothing.
    - `l1_max_bytes` (at least 64 KiB): what all that is kept may take, bookkeeping included.
    - `max_body_bytes`: a larger body is never stored.
    - `max_in_flight_bytes`: what may be held, beside what is stored, of streams that are being filled or wait for slow
      clients, in all; a stream past it goes through without being kept. A stream counts twice while it is filled.
    - `staleness_bound`: the longest that another replica may serve what a purge has reached Redis about.
    - `stale_when_disconnected`: for how long after its lease a replica that is out of touch serves what it has.
    - `mutations_when_disconnected`: `queue` their purges, or `refuse` the mutations with a 503.
    - `path_purges`: whether mutations purge their target's path and its parent collection (True), the path alone
      (`"target"`), or neither (False), so that only tags count; by headers RFC 9111 has the target purged all the same.
    - `read_your_writes`: mutations answer with a `Cacheinval-Token`, and a replica that is given one catches up first.
    - `redis_timeout`: the longest that one try of a call to Redis takes, never over a third of `staleness_bound`; what
      fails on a connection that was used before is tried once more on a fresh one.
    - `confirm_replicas`: how many replicas of the Redis server have to acknowledge a heartbeat or a purge before it
      counts, the same on every replica of the app. In one process, `stale_when_disconnected`,
      `mutations_when_disconnected`, `redis_timeout` and this one change nothing. `staleness_bound` is then only how
      long a stop waits for purges under way, and `read_your_writes` only adds the token.
    - `secret` (at least 16 characters): the key of partition digests and of what is stored in Redis, the same on every
      replica; in one process one is made at start without it.
    - `collapse_timeout`: the longest that a request waits for another's forward.
    - `max_variants`: how many variants of one resource are kept.
    - `max_refreshes`, `refresh_timeout`: how many background refreshes run, and for how long.
    - `hold_timeout`, `hold_max_bytes`: how long, and up to which size, the response of a mutation
      waits for its commit.
    - `shadow`: the share of hits, from 0 to 1, that the app answers again in the background, to be compared with what
      is stored; 0 is off.
    - `tracer_provider`, `meter_provider`: OpenTelemetry providers to report to in place of the process's.

    Raises `ConfigurationError`, naming the setting.
    """

    namespace: str = "cacheinval"
    version: str = ""
    l1_max_bytes: int = 64 * _MIB
    max_body_bytes: int = _MIB
    max_in_flight_bytes: int = 64 * _MIB
    staleness_bound: float = 2.0
    stale_when_disconnected: float = 0.0
    mutations_when_disconnected: str = "queue"
    path_purges: bool | str = True
    secret: str | bytes | None = None
    collapse_timeout: float = 5.0
    max_variants: int = 32
    read_your_writes: bool = False
    max_refreshes: int = 64
    refresh_timeout: float = 30.0
    hold_timeout: float = 0.1
    hold_max_bytes: int = 64 * _KIB
    redis_timeout: float = 0.5
    confirm_replicas: int = 0
    shadow: float = 0.0
    tracer_provider: TracerProvider | None = None
    meter_provider: MeterProvider | None = None

    @property
    def call_timeout(self) -> float:
        """The longest that one call to Redis takes, in seconds: a lease has to be renewed in time."""
        return min(self.redis_timeout, self.staleness_bound / 3)

    @property
    def of_calls(self) -> tuple[float, int]:
        """The longest that one call to Redis takes, and the most bytes that are read of one string of its answer.

        The largest strings are a body with its fields and tags, and a line of the log.
        """
        return self.call_timeout, self.max_body_bytes + 2 * _MIB

    @classmethod
    def of(cls, options: Mapping[str, object]) -> Settings:
        """Check options as they were written."""
        known = {item.name for item in fields(cls)} | {"clock", "enabled"}
        for name in options:
            if name not in known:
                if name.lower().removeprefix("redis_") == "url":
                    raise ConfigurationError(
                        f"HTTPCache has no setting {name!r}: a URL is no setting. Write HTTPCache.from_url(...)."
                    )
                raise unknown("HTTPCache has no setting", name, known)
        durations = {name: seconds(options[name], name) for name in _DURATIONS if name in options}
        return cls(**{**options, **durations})  # type: ignore[arg-type]  # checked in __post_init__

    def __post_init__(self) -> None:
        for name in ("staleness_bound", "collapse_timeout", "refresh_timeout", "redis_timeout"):
            if not getattr(self, name):
                raise ConfigurationError(f"{name} must be over 0 seconds.")
        for name, least in _COUNTS.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise ConfigurationError(f"{name} is a whole number of at least {least}, not {value!r}.")
        self._check_texts()
        if self.mutations_when_disconnected not in ("queue", "refuse"):
            raise ConfigurationError(
                f"mutations_when_disconnected is 'queue' or 'refuse', not {self.mutations_when_disconnected!r}."
            )
        if not isinstance(self.path_purges, bool) and self.path_purges != "target":
            raise ConfigurationError(f"path_purges is True, False or 'target', not {self.path_purges!r}.")
        self._check_providers()
        share: Any = self.shadow
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
            raise ConfigurationError(f"shadow is a share of hits from 0 to 1, such as 0.001, not {share!r}.")
        flag(self.read_your_writes, "read_your_writes")

    def _check_texts(self) -> None:
        for name in ("namespace", "version"):
            if not isinstance(getattr(self, name), str):
                raise ConfigurationError(f"{name} is a str, not {getattr(self, name)!r}.")
            if not is_utf8(getattr(self, name)):
                raise ConfigurationError(f"{name} is text that UTF-8 can write, not {getattr(self, name)!r}.")
        if not self.namespace:
            raise ConfigurationError("namespace must not be empty.")
        if self.secret is not None and (not isinstance(self.secret, str | bytes) or len(self.secret) < 16):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError(
                "secret is a str or bytes of at least 16 characters. "
                "Make one with: python -c 'import secrets; print(secrets.token_hex(32))'"
            )
        if isinstance(self.secret, str) and not is_utf8(self.secret):
            raise ConfigurationError("secret is text that UTF-8 can write, or bytes.")

    def _check_providers(self) -> None:
        for name, kind in (("tracer_provider", TracerProvider), ("meter_provider", MeterProvider)):
            if not isinstance(getattr(self, name), kind | None):
                raise ConfigurationError(f"{name} is an OpenTelemetry {kind.__name__}, not {getattr(self, name)!r}.")


def misplaced(given: object) -> ConfigurationError:
    """The error for what is given by position; a URL is not repeated, for its password."""
    if isinstance(given, str):
        what, write = "no URL", "HTTPCache.from_url(...)"
    elif given is None:
        what, write = "not None", "HTTPCache.from_url(...), or HTTPCache() to keep everything in this process"
    elif callable(given):
        what, write = "no app", "app.add_middleware(CacheMiddleware, cache=cache)"
    else:
        what, write = f"no {type(given).__name__}", "HTTPCache.from_client(...)"
    return ConfigurationError(f"HTTPCache() takes settings by name, {what}. Write {write}.")
