"""Checks of options that are common to all that take some: each names the option and says what it takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from fastapi_cacheinval.errors import ConfigurationError

__all__ = ["called", "flag", "flag_of_environment"]

_Call = TypeVar("_Call", bound=Callable[..., object])

_WORDS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


def flag(value: object, name: str) -> bool:
    """A switch: `True` or `False`. Anything else raises `ConfigurationError`: `"false"` would count as true."""
    if not isinstance(value, bool):
        raise ConfigurationError(f"{name} is True or False, not {value!r}.")
    return value


def flag_of_environment(text: str | None, name: str, *, default: bool) -> bool:
    """A switch in an environment variable: 1, true, yes, on, 0, false, no or off, in any case.

    It counts as not set where it is empty. Anything else raises `ConfigurationError`.
    """
    word = (text or "").strip().lower()
    if not word:
        return default
    if word not in _WORDS:
        raise ConfigurationError(f"The environment variable {name} is one of {', '.join(_WORDS)}, not {text!r}.")
    return _WORDS[word]


def called(value: _Call, name: str) -> _Call:
    """A function, or anything else that can be called; raises `ConfigurationError` for what cannot."""
    if not callable(value):
        raise ConfigurationError(f"{name} is a function, not {value!r}.")
    return value
