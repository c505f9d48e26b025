"""Switches are `True` or `False`; what is assigned to a cache works or is refused, and a misspelt name is."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from functools import partial
from typing import Any, cast
from weakref import WeakSet

import pytest
from fastapi import FastAPI
from redis.asyncio import Redis

from fastapi_cacheinval import (
    CacheinvalError,
    CacheMiddleware,
    CacheNotRunning,
    CachePolicy,
    ConfigurationError,
    HeaderOptions,
    HTTPCache,
    cached,
    invalidates,
)
from fastapi_cacheinval.contrib.cdn import CDNHeaders, Varnish
from fastapi_cacheinval.engine import neighbours
from fastapi_cacheinval.engine.internals import Internals
from fastapi_cacheinval.ports.clock import Clock
from fastapi_cacheinval.testing import FakeClock, Replicas, capture_invalidations

NO_SWITCHES = ["false", "true", "no", "", 0, 1, None, [], b"1", 0.0]

cache_of: Any = HTTPCache
policy_of: Any = CachePolicy


async def app(scope: Any, receive: Any, send: Any) -> None:
    """An app that answers nothing."""


def middleware(**options: Any) -> CacheMiddleware:
    """A middleware with options of any type."""
    return CacheMiddleware(app, **options)


def awaited(call: Callable[[HTTPCache], Any]) -> None:
    """Make a call to a cache that has been started."""

    async def run() -> None:
        async with HTTPCache() as cache:
            await call(cache)

    asyncio.run(run())


varnish: Any = Varnish("http://localhost")
SWITCHES: dict[str, Callable[[Any], object]] = {
    "HTTPCache enabled": lambda value: cache_of(enabled=value),
    "from_url enabled": lambda value: HTTPCache.from_url("memory://", enabled=value),
    "from_url redis enabled": lambda value: HTTPCache.from_url("redis://localhost", enabled=value),
    "enabled later": lambda value: setattr(HTTPCache(), "enabled", value),
    "read_your_writes": lambda value: cache_of(read_your_writes=value),
    "emit_surrogate_key": lambda value: middleware(emit_surrogate_key=value),
    "emit_cache_status": lambda value: middleware(emit_cache_status=value),
    "honour_headers": lambda value: middleware(honour_headers=value),
    "set_cookie": lambda value: HeaderOptions(set_cookie=value),
    "request_directives": lambda value: HeaderOptions(request_directives=value),
    "invalidates soft": lambda value: invalidates("it", soft=value),
    "invalidate soft": lambda value: awaited(lambda cache: cache.invalidate("it", soft=value)),
    "invalidate_url soft": lambda value: awaited(lambda cache: cache.invalidate_url("/it", soft=value)),
    "clear soft": lambda value: awaited(lambda cache: cache.clear(soft=value)),
    "deliver soft": lambda value: awaited(lambda cache: cache.deliver("it", soft=value)),
    "deliver everything": lambda value: awaited(lambda cache: cache.deliver("it", everything=value)),
    "invalidate_sync soft": lambda value: HTTPCache().invalidate_sync("it", soft=value),
    "invalidate_soon soft": lambda value: HTTPCache().invalidate_soon("it", soft=value),
    "private": lambda value: CDNHeaders(cdn=varnish, tags="xkey", lifetime="x-ttl", asked_by=None, private=value),
    "heeds_age": lambda value: CDNHeaders(cdn=varnish, tags="xkey", lifetime="x-ttl", asked_by=None, heeds_age=value),
    "heeds_vary": lambda value: CDNHeaders(cdn=varnish, tags="xkey", lifetime="x-ttl", asked_by=None, heeds_vary=value),
}
OPTIONAL: dict[str, Callable[[Any], object]] = {
    "front": lambda value: middleware(front=value),
    "CachePolicy shared": lambda value: policy_of(60, shared=value),
    "cached shared": lambda value: cached(ttl=60, shared=value),
    "cached over a policy": lambda value: cached(CachePolicy(60), shared=value),
}


@pytest.mark.parametrize("value", NO_SWITCHES, ids=repr)
@pytest.mark.parametrize("which", [*SWITCHES, *OPTIONAL])
def test_a_switch_takes_true_and_false_and_nothing_that_looks_like_them(which: str, value: Any) -> None:
    """Text, numbers and the like raise `ConfigurationError`, which repeats what was given; None only where it means something."""
    if which in OPTIONAL and value is None:
        OPTIONAL[which](value)
        return
    with pytest.raises(ConfigurationError) as caught:
        {**SWITCHES, **OPTIONAL}[which](value)
    assert repr(value) in str(caught.value)
    assert which.rsplit(maxsplit=1)[-1].removeprefix("policy") in str(caught.value) or which.startswith(
        ("enabled", "cached over")
    )


@pytest.mark.parametrize("value", [True, False])
@pytest.mark.parametrize("which", [*SWITCHES, *OPTIONAL])
def test_every_switch_takes_true_and_false(which: str, value: Any) -> None:
    """Neither is refused, but for a purge from where there is no loop."""
    if which == "invalidate_soon soft":
        with pytest.raises(CacheNotRunning):
            SWITCHES[which](value)
    else:
        {**SWITCHES, **OPTIONAL}[which](value)


@pytest.mark.parametrize(
    ("text", "on"),
    [
        ("1", True),
        ("true", True),
        ("YES", True),
        ("On", True),
        ("0", False),
        ("False", False),
        ("no", False),
        (" oFF ", False),
    ],
)
def test_the_environment_variable_takes_eight_words_in_any_case(
    text: str, monkeypatch: pytest.MonkeyPatch, *, on: bool
) -> None:
    """Both ways of making a cache obey it; `enabled=False` stays off."""
    monkeypatch.setenv("CACHEINVAL_ENABLED", text)
    assert HTTPCache().enabled is on
    assert HTTPCache.from_url("redis://localhost").enabled is on
    assert HTTPCache(enabled=False).enabled is False


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("text", ["nope", "2", "disabled", "tru\u0435", "-1", "null", "enabled=0"])
def test_another_word_in_the_environment_is_refused_where_the_cache_is_made(
    text: str, monkeypatch: pytest.MonkeyPatch, *, enabled: bool
) -> None:
    """The error names the variable, what it holds and what it may hold."""
    monkeypatch.setenv("CACHEINVAL_ENABLED", text)
    for make in (HTTPCache, lambda **options: HTTPCache.from_url("redis://localhost", **options)):
        with pytest.raises(ConfigurationError) as caught:
            make(enabled=enabled)
        for part in ("CACHEINVAL_ENABLED", repr(text), "true", "off"):
            assert part in str(caught.value)


SETTINGS = [
    "namespace", "version", "l1_max_bytes", "max_body_bytes", "staleness_bound", "stale_when_disconnected",
    "mutations_when_disconnected", "secret", "collapse_timeout", "max_variants", "read_your_writes", "max_refreshes",
    "refresh_timeout", "hold_timeout", "hold_max_bytes", "redis_timeout", "confirm_replicas", "tracer_provider",
    "meter_provider", "clock", "settings", "statistics", "invalidate", "loops",
]  # fmt: skip


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_that_is_assigned_later_is_refused(name: str) -> None:
    """The error is a `ConfigurationError` and an `AttributeError`, names the setting, and nothing has changed."""
    cache = HTTPCache()
    before = getattr(cache, name, None)
    for kind in (ConfigurationError, AttributeError, CacheinvalError):
        with pytest.raises(kind, match=name):
            setattr(cache, name, FakeClock())
    assert getattr(cache, name, None) == before


@pytest.mark.parametrize(
    ("name", "meant"),
    [("enable", "enabled"), ("Enabled", "enabled"), ("is_enabled", "enabled"), ("stalenes_bound", "staleness_bound")],
)
def test_a_misspelt_attribute_is_refused_with_the_name_that_was_meant(name: str, meant: str) -> None:
    """On the cache and, as far as it has such an option, in its constructor."""
    cache = HTTPCache()
    with pytest.raises(AttributeError, match=meant):
        setattr(cache, name, False)
    assert cache.enabled
    with pytest.raises(ConfigurationError, match=meant):
        cache_of(**{name: False})


def test_an_attribute_that_resembles_nothing_is_refused_on_a_cache_and_kept_on_a_subclass() -> None:
    """A subclass may keep what it likes beside the cache; settings and misspelt ones it may not."""

    class Mine(HTTPCache):
        def __init__(self) -> None:
            super().__init__()
            self.redirects = 3

    with pytest.raises(AttributeError, match="redirects"):
        cast("Any", HTTPCache()).redirects = 3
    mine: Any = Mine()
    assert mine.redirects == 3
    for name in ("clock", "enable"):
        with pytest.raises(AttributeError):
            setattr(mine, name, None)


MADE: dict[str, Callable[[type[HTTPCache]], HTTPCache]] = {
    "a call": lambda kind: kind(),
    "from_url memory": lambda kind: kind.from_url("memory://"),
    "from_url redis": lambda kind: kind.from_url("redis://127.0.0.1:1"),
    "from_client": lambda kind: kind.from_client(Redis()),
    "from_env": lambda kind: kind.from_env({"CACHEINVAL_URL": "redis://127.0.0.1:1"}),
}


@pytest.mark.parametrize("way", MADE)
def test_a_cache_is_made_once_also_of_a_subclass_with_settings_of_its_own(way: str) -> None:
    """There are no second parts that a fork and the neighbours would see; a subclass's `__init__` runs as ever."""
    made: list[Internals] = []

    class Counted(Internals):
        def __init__(self, *given: Any, **more: Any) -> None:
            made.append(self)
            super().__init__(*given, **more)

    class Mine(HTTPCache):
        _parts = Counted

        def __init__(self, *, clock: Clock | None = None, enabled: bool = True) -> None:
            super().__init__(clock=clock, enabled=enabled, namespace="mine")
            self.redirects = 3
            self.enabled = False

    mine: Any = MADE[way](Mine)
    assert made == [mine._core]
    assert (type(mine), mine.redirects) == (Mine, 3)
    assert (mine.settings.namespace, mine.enabled) == ("mine", False)
    assert (mine._core.connect is None) is (way in ("a call", "from_url memory"))


@pytest.mark.parametrize("name", ["way", "connect", "self_"])
def test_a_setting_that_there_is_not_is_refused_by_each_way_to_make_a_cache(name: str) -> None:
    """Also one that is called as an argument inside."""
    kind: Any = HTTPCache
    for make in (
        kind,
        partial(kind.from_url, "memory://"),
        partial(kind.from_client, Redis()),
        partial(kind.from_env, {}),
    ):
        with pytest.raises(ConfigurationError, match=f"no setting '{name}'"):
            make(**{name: 1})


def test_a_cache_in_use_by_url_is_none_without_an_app(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A middleware beside it that makes its own cache hears of no other cache that serves no app."""
    monkeypatch.setattr(neighbours, "_all", WeakSet[neighbours.Neighbour]())
    gc.disable()
    try:
        used = CacheMiddleware(app, HTTPCache.from_url("redis://127.0.0.1:1"))
        own = CacheMiddleware(app)
        assert len(neighbours._all) == 2
        own._parts.prepare({"type": "lifespan"})
    finally:
        gc.enable()
    assert used.cache is not own.cache
    assert [line for line in caplog.messages if "serves no app" in line] == []


def test_settings_and_policies_that_have_been_made_are_frozen() -> None:
    """What hangs on a cache, a policy or options cannot be changed either."""
    made: list[tuple[Any, str]] = [
        (HTTPCache().settings, "staleness_bound"),
        (CachePolicy(60), "ttl"),
        (HeaderOptions(), "set_cookie"),
    ]
    for each, name in made:
        with pytest.raises(AttributeError):
            setattr(each, name, 1)


def test_enabled_works_at_run_time() -> None:
    """It is the one that can be set, and reads back."""
    cache = HTTPCache()
    cache.enabled = False
    assert not cache.statistics().enabled
    cache.enabled = True
    assert cache.statistics().enabled


TYPES: dict[str, Callable[[], object]] = {
    "a function as clock": lambda: cache_of(clock=len),
    "a class as clock": lambda: cache_of(clock=FakeClock),
    "an app as cache": lambda: middleware(cache=FastAPI()),
    "a string as downstream": lambda: middleware(downstream="varnish"),
    "a wait that is none": lambda: awaited(lambda cache: cache.invalidate("it", wait=cast("Any", "ALL"))),
    "a wait that is a switch": lambda: awaited(lambda cache: cache.clear(wait=cast("Any", True))),
    "a timeout as text": lambda: HTTPCache().invalidate_sync("it", timeout=cast("Any", "5")),
    "a listener that is none": lambda: HTTPCache().add_listener(cast("Any", "tell")),
    "an observer that is none": lambda: HTTPCache().add_observer(cast("Any", None)),
    "mutations": lambda: cache_of(mutations_when_disconnected="QUEUE"),
    "mutations as a switch": lambda: cache_of(mutations_when_disconnected=True),
    "a start as text": lambda: FakeClock(cast("Any", "0")),
    "replicas as text": lambda: Replicas("shop:app", cast("Any", "2")),
    "replicas as a switch": lambda: Replicas("shop:app", count=True),
    "replicas of an app": lambda: Replicas(cast("Any", FastAPI())),
    "captured from an app": lambda: capture_invalidations(cast("Any", FastAPI())).__enter__(),
}


@pytest.mark.parametrize("which", [*TYPES])
def test_other_options_of_a_wrong_type_are_refused(which: str) -> None:
    """Where they are given, with a `ConfigurationError`."""
    with pytest.raises(ConfigurationError):
        TYPES[which]()


@pytest.mark.parametrize("seconds", [-1, float("nan"), "1", None, True])
def test_a_fake_clock_is_ticked_by_seconds(seconds: Any) -> None:
    """Anything else is refused, and the clock stands where it stood."""
    clock = FakeClock()
    with pytest.raises(ValueError, match="seconds"):
        clock.tick(seconds)
    assert clock.now() == 1_000.0


def test_the_environment_is_read_when_a_cache_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that is set later changes no cache that is there."""
    monkeypatch.delenv("CACHEINVAL_ENABLED", raising=False)
    cache = HTTPCache()
    monkeypatch.setenv("CACHEINVAL_ENABLED", "0")
    assert cache.enabled
    assert not HTTPCache().enabled


@pytest.mark.parametrize("name", ["invalidate", "clear", "statistics"])
def test_a_method_that_is_replaced_is_refused_with_what_tests_want(name: str) -> None:
    """As a mock would do it; what is purged can be captured."""
    with pytest.raises(ConfigurationError, match=rf"{name}\(\) cannot be replaced .*capture_invalidations"):
        setattr(HTTPCache(), name, lambda: None)
