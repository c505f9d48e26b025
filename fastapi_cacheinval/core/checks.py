"""Checks of options that are common to all that take some: each names the option and says what it takes."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from datetime import timedelta
from difflib import get_close_matches
from typing import Literal, TypeVar

from fastapi_cacheinval.errors import ConfigurationError, SettingIsFixed

__all__ = [
    "Wait",
    "called",
    "flag",
    "flag_of_environment",
    "is_utf8",
    "number",
    "refuse_to_set",
    "seconds",
    "unknown",
    "waits",
]

Wait = Literal["all"] | None
"""What a purge waits for, besides its number: nothing, or every replica."""

_Call = TypeVar("_Call", bound=Callable[..., object])

# Far beyond any use, and small enough to stay an exact float and a legal delta-seconds.
_LONGEST = 10 * 365 * 86_400.0
_WORDS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


def flag(value: object, name: str) -> bool:
    """A switch: `True` or `False`. Anything else raises `ConfigurationError`: `"false"` would count as true."""
    if not isinstance(value, bool):
        raise ConfigurationError(f"{name} is True or False, not {value!r}.")
    return value


def number(value: object, name: str, most: float) -> float:
    """A number as a float; raises `ConfigurationError` unless it lies in [0, `most`]."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
        raise ConfigurationError(f"{name} is a number from 0 to {most:g}, not {value!r}.")
    return float(value)


def seconds(value: object, name: str) -> float:
    """A duration as float seconds; raises `ConfigurationError` unless it is a number or timedelta in [0, 10 years]."""
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigurationError(f"{name} is seconds or a timedelta, not {value!r}.")
    if not 0 <= value <= _LONGEST or math.isnan(value):
        raise ConfigurationError(f"{name} must lie between 0 and ten years, not {value!r} s.")
    return float(value)


def unknown(what: str, name: str, known: Collection[str]) -> ConfigurationError:
    """What to raise for a name that is not one of the known ones: the nearest of these first, then all of them."""
    near = get_close_matches(name, known, 1)
    meant = f". Did you mean {near[0]!r}? It has " if near else "; it has "
    return ConfigurationError(f"{what} {name!r}{meant}{', '.join(sorted(known))}.")


def is_utf8(text: str) -> bool:
    """Whether UTF-8 can write it; not so half of a surrogate pair, as which bytes of the environment may come."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def waits(wait: object) -> bool:
    """Whether `wait` asks for every replica; raises `ConfigurationError` for what is neither None nor "all"."""
    if wait not in (None, "all"):
        raise ConfigurationError(f'wait is None or "all", not {wait!r}.')
    return wait is not None


def flag_of_environment(text: str | None, name: str, *, default: bool, beside: Sequence[str] = ()) -> bool:
    """A switch in an environment variable: 1, true, yes, on, 0, false, no or off, in any case.

    It counts as not set where it is empty. Anything else raises `ConfigurationError`; `beside` are words that the
    caller has taken itself.
    """
    word = (text or "").strip().lower()
    if not word:
        return default
    if word not in _WORDS:
        words = ", ".join([*beside, *_WORDS])
        raise ConfigurationError(f"The environment variable {name} is one of {words}, not {text!r}.")
    return _WORDS[word]


def called(value: _Call, name: str) -> _Call:
    """A function, or anything else that can be called; raises `ConfigurationError` for what cannot."""
    if not callable(value):
        raise ConfigurationError(f"{name} is a function, not {value!r}.")
    return value


def refuse_to_set(name: str, known: Collection[str], *, method: bool, anything: bool) -> None:
    """Raise `SettingIsFixed` for a known attribute of a cache, one that resembles it, and where so asked anything."""
    if method:
        raise SettingIsFixed(
            f"{name}() cannot be replaced on a cache. Tests see what is purged with "
            "fastapi_cacheinval.testing.capture_invalidations(cache)."
        )
    if name in known:
        raise SettingIsFixed(
            f"{name} cannot be set on a cache that has been made: give it to HTTPCache(...). "
            "Only enabled can be set later."
        )
    near = get_close_matches(name, known, 1)
    if near or anything:
        meant = f"Did you mean {near[0]!r}?" if near else "Only enabled can be set."
        raise SettingIsFixed(f"HTTPCache has no attribute {name!r} to set. {meant}")
