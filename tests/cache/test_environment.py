"""`HTTPCache.from_env`: settings from environment variables."""

from __future__ import annotations

from dataclasses import fields

import pytest

from fastapi_cacheinval import HTTPCache
from fastapi_cacheinval.engine.settings import Settings
from fastapi_cacheinval.errors import ConfigurationError


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """No switch of the machine's own."""
    monkeypatch.delenv("CACHEINVAL_ENABLED", raising=False)


def test_nothing_set_is_a_cache_in_this_process() -> None:
    """Every setting has its default."""
    assert HTTPCache.from_env({}).settings == Settings()


VALUES = {
    "namespace": ("shop", "shop"),
    "version": ("2026-11", "2026-11"),
    "l1_max_bytes": ("128MiB", 128 * 1024 * 1024),
    "max_body_bytes": ("512 kib", 512 * 1024),
    "max_in_flight_bytes": ("0", 0),
    "staleness_bound": ("0.5", 0.5),
    "stale_when_disconnected": (" 3 ", 3.0),
    "mutations_when_disconnected": ("refuse", "refuse"),
    "secret": ("a secret of some length", "a secret of some length"),
    "collapse_timeout": ("1e1", 10.0),
    "shadow": ("0.001", 0.001),
    "max_variants": ("1_0", 10),
    "path_purges": (" Target ", "target"),
    "read_your_writes": ("Yes", True),
    "max_refreshes": ("8", 8),
    "refresh_timeout": ("9", 9.0),
    "hold_timeout": ("0", 0.0),
    "hold_max_bytes": ("1GiB", 1024**3),
    "redis_timeout": ("0.25", 0.25),
    "confirm_replicas": ("2", 2),
}


@pytest.mark.parametrize("name", [each.name for each in fields(Settings) if not each.name.endswith("_provider")])
def test_every_setting_has_its_variable(name: str) -> None:
    """Its name in upper case, with the prefix."""
    text, value = VALUES[name]
    cache = HTTPCache.from_env({f"CACHEINVAL_{name.upper()}": text, "PATH": "/bin", "CACHEINVAL_URL": "memory://"})
    assert getattr(cache.settings, name) == value


def test_a_variable_wins_over_what_the_app_says() -> None:
    """An operator can change what the code has; what no variable names is the app's."""
    cache = HTTPCache.from_env({"CACHEINVAL_NAMESPACE": "blue"}, namespace="shop", version="7")
    assert (cache.settings.namespace, cache.settings.version) == ("blue", "7")


def test_an_empty_variable_is_not_set() -> None:
    """As a deployment's template leaves it."""
    cache = HTTPCache.from_env({"CACHEINVAL_URL": " ", "CACHEINVAL_NAMESPACE": "", "CACHEINVAL_MAX_VARIANTS": ""})
    assert cache.settings == Settings()


def test_the_environment_of_the_process_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the switch counts with it."""
    monkeypatch.setenv("CACHEINVAL_VERSION", "9")
    monkeypatch.setenv("CACHEINVAL_ENABLED", "off")
    cache = HTTPCache.from_env()
    assert (cache.settings.version, cache.enabled) == ("9", False)


def test_what_kubernetes_sets_for_a_service_of_that_name_is_no_setting() -> None:
    """Every process beside a Service called `cacheinval` has these variables."""
    port = "tcp://10.0.0.1:6379"
    given = {"SERVICE_HOST": "10.0.0.1", "SERVICE_PORT": "6379", "PORT": port, "PORT_6379_TCP_ADDR": "10.0.0.1"}
    assert HTTPCache.from_env({f"CACHEINVAL_{name}": text for name, text in given.items()}).settings == Settings()


def test_a_url_of_redis_makes_a_shared_cache() -> None:
    """It need not be there yet; one of another kind is refused with the kinds that there are."""
    assert "Replica" in repr(HTTPCache.from_env({"CACHEINVAL_URL": "redis://127.0.0.1:1/0"}))
    with pytest.raises(ConfigurationError, match="redis://"):
        HTTPCache.from_env({"CACHEINVAL_URL": "http://127.0.0.1"})


WRONG = {
    "CACHEINVAL_NAMSPACE": ("shop", "Did you mean CACHEINVAL_NAMESPACE?"),
    "CACHEINVAL_Version": ("1", "Did you mean CACHEINVAL_VERSION?"),
    "CACHEINVAL_TRACER_PROVIDER": ("x", "CACHEINVAL_TRACER_PROVIDER names no setting"),
    "CACHEINVAL_L1_MAX_BYTES": ("64MB", "a whole number, with KiB, MiB or GiB"),
    "CACHEINVAL_MAX_VARIANTS": ("-1", "a whole number"),
    "CACHEINVAL_MAX_REFRESHES": ("0", "at least 1"),
    "CACHEINVAL_STALENESS_BOUND": ("2s", "a number of seconds"),
    "CACHEINVAL_REDIS_TIMEOUT": ("nan", "redis_timeout"),
    "CACHEINVAL_READ_YOUR_WRITES": ("maybe", "true"),
    "CACHEINVAL_MUTATIONS_WHEN_DISCONNECTED": ("drop", "'queue' or 'refuse'"),
    "CACHEINVAL_PATH_PURGES": ("parents", "target, 1, true"),
    "CACHEINVAL_CLOCK": ("x", "names no setting. There are CACHEINVAL_COLLAPSE_TIMEOUT"),
    "CACHEINVAL_REDIS_URL": ("redis://redis", "Did you mean CACHEINVAL_URL?"),
    "CACHEINVAL_URI": ("redis://redis", "Did you mean CACHEINVAL_URL?"),
    "CACHEINVAL_SECRET": ("short", "at least 16"),
    "CACHEINVAL_URL": ("redis://:pass/word@host:6379", "cannot work: "),
    "CACHEINVAL_NAMESPACE": ("shop\udcff", "namespace is text that UTF-8 can write"),
    "CACHEINVAL_VERSION": ("1\ud800", "version is text that UTF-8 can write"),
}


@pytest.mark.parametrize("variable", WRONG)
def test_a_variable_that_cannot_work_is_named(variable: str) -> None:
    """With what it takes; the text of a secret or of a URL is not in the message."""
    text, said = WRONG[variable]
    with pytest.raises(ConfigurationError) as caught:
        HTTPCache.from_env({variable: text})
    assert variable in str(caught.value)
    assert said in str(caught.value)
    assert variable not in {"CACHEINVAL_SECRET", "CACHEINVAL_URL"} or text not in str(caught.value)


def test_a_secret_or_a_url_that_has_no_bytes_is_refused_without_its_text() -> None:
    """A byte of the environment that is no UTF-8 comes as half of a surrogate pair."""
    for name, text in (("SECRET", "hunter2\udcff" * 3), ("URL", "redis://:hunter2\udcff@localhost")):
        with pytest.raises(ConfigurationError, match="UTF-8") as caught:
            HTTPCache.from_env({f"CACHEINVAL_{name}": text})
        assert "hunter2" not in str(caught.value)
    # Paths of files may have such bytes.
    assert HTTPCache.from_url("unix:///tmp/\udcff").settings.namespace == "cacheinval"


def test_all_that_is_wrong_is_said_at_once() -> None:
    """One start finds every fault."""
    with pytest.raises(ConfigurationError) as caught:
        HTTPCache.from_env({variable: text for variable, (text, _) in WRONG.items()})
    assert all(variable in str(caught.value) for variable in WRONG)
