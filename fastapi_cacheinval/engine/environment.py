"""Settings from environment variables: the URL, and each setting that is a text, a number or a switch."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from difflib import get_close_matches

from fastapi_cacheinval.core.checks import flag_of_environment
from fastapi_cacheinval.engine.settings import Settings
from fastapi_cacheinval.errors import ConfigurationError

__all__ = ["PREFIX", "settings_of_environment"]

PREFIX = "CACHEINVAL_"

# What is read elsewhere: the URL here, the switch wherever a cache is made.
_URL = f"{PREFIX}URL"
_OWN = (_URL, f"{PREFIX}ENABLED")
# What Kubernetes gives every process that runs beside a Service of the name `cacheinval`.
_FOREIGN = re.compile(rf"{PREFIX}(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\w+)?)")
_UNITS = {"": 1, "kib": 1024, "mib": 1024**2, "gib": 1024**3}
_SIZE = re.compile(r"\s*([0-9][0-9_]*)\s*([a-z]*)\s*", re.IGNORECASE | re.ASCII)
_DEFAULTS: Mapping[str, object] = {
    each.name: each.default for each in fields(Settings) if not each.name.endswith("_provider")
}


def settings_of_environment(
    environ: Mapping[str, str], check_url: Callable[[str], object]
) -> tuple[str, dict[str, object]]:
    """The URL, which is `memory://` where none is given, and the settings that variables name.

    A variable is `CACHEINVAL_` and the setting's name in upper case; one that is empty counts as not set. Durations are
    seconds; sizes are bytes, or a number with `KiB`, `MiB` or `GiB`. `check_url` raises `ConfigurationError` for a URL
    that names no server. Raises one `ConfigurationError` with every variable that is unknown or cannot work.
    """
    url, options, faults = "memory://", dict[str, object](), list[str]()
    for variable, text in environ.items():
        if not variable.startswith(PREFIX) or not text.strip() or _FOREIGN.fullmatch(variable):
            continue
        name = variable.removeprefix(PREFIX).lower()
        try:
            if variable == _URL:
                url = text.strip()
                with _blamed_on(variable):
                    check_url(url)
            elif variable not in _OWN:
                options[name] = _value(variable, name, text)
        except ConfigurationError as error:
            faults.append(str(error))
    if faults:
        raise ConfigurationError("\n".join(faults))
    return url, options


def _value(variable: str, name: str, text: str) -> object:
    if name not in _DEFAULTS or variable != variable.upper():
        known = [*_OWN, *(f"{PREFIX}{each.upper()}" for each in _DEFAULTS)]
        # By what follows the prefix, which all have.
        bare = [each.removeprefix(PREFIX) for each in known]
        near = ["URL"] if name.endswith("url") else get_close_matches(name.upper(), bare, 1)
        meant = f" Did you mean {PREFIX}{near[0]}?" if near else f" There are {', '.join(sorted(known))}."
        raise ConfigurationError(f"The environment variable {variable} names no setting.{meant}")
    default = _DEFAULTS[name]
    value: object
    beside = ("target",) if name == "path_purges" else ()
    if text.strip().lower() in beside:
        value = text.strip().lower()
    elif isinstance(default, bool):
        value = flag_of_environment(text, variable, default=default, beside=beside)
    elif isinstance(default, int):
        value = _whole(variable, text)
    elif isinstance(default, float):
        value = _seconds(variable, text)
    else:
        value = text.strip()
    with _blamed_on(variable):
        Settings.of({name: value})
    return value


@contextmanager
def _blamed_on(variable: str) -> Generator[None]:
    """Name the variable in what is raised about its value."""
    try:
        yield
    except ConfigurationError as error:
        raise ConfigurationError(f"The environment variable {variable} cannot work: {error}") from error


def _whole(variable: str, text: str) -> int:
    found = _SIZE.fullmatch(text)
    unit = None if found is None else _UNITS.get(found[2].lower())
    if found is None or unit is None:
        raise ConfigurationError(
            f"The environment variable {variable} is a whole number, with KiB, MiB or GiB for a size, not {text!r}."
        )
    return int(found[1]) * unit


def _seconds(variable: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigurationError(f"The environment variable {variable} is a number of seconds, not {text!r}.") from None
