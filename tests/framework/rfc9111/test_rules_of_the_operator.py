"""`HeaderOptions(default_ttl=..., rules=...)`: lifetimes for apps whose responses say nothing, or the wrong thing."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from fastapi_cacheinval import ConfigurationError, HeaderOptions, HeaderRule
from tests.helpers.origin import Origin

pytestmark = pytest.mark.anyio


async def test_without_a_rule_a_response_that_says_nothing_is_not_kept() -> None:
    """As RFC 9111 has it."""
    origin = Origin()
    origin.says()
    for _ in range(2):
        await origin.get("/")
    assert len(origin.asked) == 2


@pytest.mark.parametrize("ttl", [60, 60.0, timedelta(minutes=1)])
async def test_a_response_that_says_nothing_has_the_default(ttl: Any) -> None:
    """In seconds, or as a duration; it ends when it is over."""
    origin = Origin(HeaderOptions(default_ttl=ttl))
    origin.says()
    for wait, forwards in ((0, 1), (0, 1), (59, 1), (2, 2)):
        origin.clock.tick(wait)
        await origin.get("/")
        assert len(origin.asked) == forwards


SAYS: dict[str, dict[str, str]] = {
    "a lifetime": {"cache-control": "max-age=10"},
    "one for shared caches": {"cache-control": "s-maxage=10"},
    "one for CDNs": {"cdn-cache-control": "max-age=10"},
}


@pytest.mark.parametrize("headers", SAYS.values(), ids=SAYS)
async def test_what_a_response_says_holds_before_the_default(headers: dict[str, str]) -> None:
    """The app knows it better."""
    origin = Origin(HeaderOptions(default_ttl=600, rules=[("*", 600)]))
    origin.says(headers)
    for wait, forwards in ((0, 1), (9, 1), (2, 2)):
        origin.clock.tick(wait)
        await origin.get("/")
        assert len(origin.asked) == forwards


NEVER: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "no-store": ({"headers": {"cache-control": "no-store"}}, {}),
    "private": ({"headers": {"cache-control": "private"}}, {}),
    "a cookie that is set": ({"headers": {"set-cookie": "a=1"}}, {}),
    "any field": ({"headers": {"vary": "*"}}, {}),
    "an error": ({"status": 404}, {}),
    "a failure": ({"status": 500}, {}),
    "credentials": ({}, {"authorization": "Basic eDp5"}),
    "a cookie": ({}, {"cookie": "a=1"}),
}


@pytest.mark.parametrize("case", NEVER.values(), ids=NEVER)
async def test_a_default_makes_nothing_shared_that_may_be_one_callers(case: Any) -> None:
    """Whoever sends a cookie or credentials is answered by the app, and so is an error."""
    said, asked = case
    for options in (HeaderOptions(default_ttl=600), HeaderOptions(rules=[("/*", 600)])):
        origin = Origin(options)
        origin.says(**said)
        for _ in range(2):
            await origin.get("/", headers=asked)
        assert len(origin.asked) == 2


async def test_the_first_rule_that_fits_holds() -> None:
    """By path, in which a star stands for any text, slashes included."""
    rules = [("/static/admin/*", 0), ("/static/*", 3600), ("*.css", 60), ("/exact", 5), ("/a[b]+c.d", 5)]
    options = HeaderOptions(default_ttl=1, rules=rules)
    found = {
        path: None if (rule := options.rule_for(path)) is None else rule.lifetime
        for path in (
            "/static/admin/x", "/static/a/b.css", "/static/", "/static", "/site.css", "/site.cssx", "/exact", "/exact/",
            "/a[b]+c.d", "/abXcXd", "/static/a\u2028b",
        )
    }  # fmt: skip
    assert found == {
        "/static/admin/x": 0, "/static/a/b.css": 3600, "/static/": 3600, "/static": None, "/site.css": 60,
        "/site.cssx": None, "/exact": 5, "/exact/": None, "/a[b]+c.d": 5, "/abXcXd": None, "/static/a\u2028b": 3600,
    }  # fmt: skip


@pytest.mark.parametrize(
    "path",
    [
        "/static/../account", "/static/a/../../account", "/static/x/..\\../account", "/static/..;/account",
        "/static/..", "/account;a.css", "/account\0.css", "/account?a.css", "/account#.css", "/account\n.css",
        "/x/../admin/y", "//admin/y", "/./admin/y", "/\\admin/y", "/;/admin/y", "/admin;x/y", "/static/../admin/y",
        "/static/%2e%2e/account", "/static/%2e./%61ccount", "/%61dmin/y", "/static/../account/..;/static/x",
        "/x/../admin/..;/x", "/static/../account/..\0/static/x", "/static/../account/.;/../static/x", "/static/./a",
        "/static//a", "/static/a;v=1", "/static/x\\y", "/static/a/..", "/static/a/.", "/static/a%20b", "/live/../live",
    ],
)  # fmt: skip
async def test_nothing_is_kept_of_a_path_that_an_app_may_take_for_another(path: str) -> None:
    """Whatever the rules say of either, and however a server resolves dots and parameters."""
    rules: list[tuple[str, Any]] = [
        ("/admin/*", HeaderRule(0, override=True)),
        ("/static/*", HeaderRule(600, override=True)),
        ("*.css", 600),
    ]
    rule = HeaderOptions(default_ttl=600, rules=rules).rule_for(path)
    assert rule is not None
    assert (rule.lifetime, rule.override) == (0, True)


@pytest.mark.parametrize(
    "path",
    [
        "/static/", "/static/.well-known/x", "/static/...", "/static/..a", "/static/a..b/c.", "/static/.../a",
        "/static/100%", "/static/a b", "/static/a=b&c,d@e:f", "/static/\u00e9",
    ],
)  # fmt: skip
async def test_a_path_that_every_app_takes_for_itself_has_its_rule(path: str) -> None:
    """However odd it is."""
    rule = HeaderOptions(rules=[("/static/*", 600)]).rule_for(path)
    assert rule is not None
    assert rule.lifetime == 600


async def test_behind_an_app_that_resolves_dots_nobody_gets_anothers_page() -> None:
    """Web cache deception: the victim is led to a path under a rule that overrides what the app says of the page."""
    origin = Origin(HeaderOptions(rules=[("/static/*", HeaderRule(86_400, override=True))]))
    origin.says({"cache-control": "private, no-store"}, path="/static/../account")
    for forwards in (1, 2):
        await origin.get("/static/../account")
        assert len(origin.asked) == forwards


async def test_a_rule_of_nothing_switches_guessing_off() -> None:
    """Neither the default nor `Last-Modified` gives a lifetime there."""
    origin = Origin(HeaderOptions(default_ttl=600, rules=[("/live", 0)]))
    headers = {"last-modified": origin.date(-86_400)}
    for path, forwards in (("/live", 2), ("/other", 1)):
        origin.asked.clear()
        origin.says(headers, path=path)
        origin.clock.tick(1)
        for _ in range(2):
            await origin.get(path)
            origin.clock.tick(1)
        assert len([scope for scope in origin.asked if b"if-modified-since" not in dict(scope["headers"])]) >= 1
        assert (len(origin.asked) == 1) == (forwards == 1)


IGNORED: dict[str, dict[str, str]] = {
    **SAYS,
    "no-store": {"cache-control": "no-store"},
    "no-cache": {"cache-control": "no-cache, must-revalidate"},
    "private": {"cache-control": "private, max-age=0"},
    "the past": {"expires": "0", "pragma": "no-cache"},
    "one for CDNs that forbids": {"cdn-cache-control": "no-store", "surrogate-control": "no-store"},
}


@pytest.mark.parametrize("headers", IGNORED.values(), ids=IGNORED)
async def test_a_rule_that_overrides_holds_whatever_a_response_says(headers: dict[str, str]) -> None:
    """The operator's word; clients are told what the app says."""
    origin = Origin(HeaderOptions(rules=[("/static/*", HeaderRule(60, override=True))]))
    origin.says(headers, path="/static/a")
    first = await origin.get("/static/a")
    for wait, forwards in ((0, 1), (58, 1), (3, 2)):
        origin.clock.tick(wait)
        answer = await origin.get("/static/a")
        assert len(origin.asked) == forwards
        assert answer.headers.get("cache-control") == first.headers.get("cache-control") == headers.get("cache-control")


REMAINS: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "a cookie that is set": ({"headers": {"set-cookie": "a=1"}}, {}),
    "any field": ({"headers": {"vary": "*"}}, {}),
    "an error": ({"status": 404, "headers": {"cache-control": "no-store"}}, {}),
    "a failure": ({"status": 503}, {}),
    "credentials": ({}, {"authorization": "Basic eDp5"}),
}


@pytest.mark.parametrize("case", REMAINS.values(), ids=REMAINS)
async def test_what_no_rule_overrides(case: Any) -> None:
    """Callers' own responses, and errors."""
    said, asked = case
    origin = Origin(HeaderOptions(rules=[("*", HeaderRule(60, override=True))]))
    origin.says(**said)
    for _ in range(2):
        await origin.get("/", headers=asked)
    assert len(origin.asked) == 2


async def test_a_rule_that_overrides_with_nothing_keeps_nothing() -> None:
    """Whatever the app allows."""
    origin = Origin(HeaderOptions(rules=[("/admin*", HeaderRule(0, override=True))]))
    origin.says({"cache-control": "public, max-age=600"}, path="/admin/users")
    for _ in range(2):
        await origin.get("/admin/users")
    assert len(origin.asked) == 2


WRONG: dict[str, Any] = {
    "a mapping": {"/static/*": 60},
    "text": "/static/*",
    "no pair": [("/static/*",)],
    "a list in place of a pair": [["/static/*", 60]],
    "no path": [(60, "/static/*")],
    "a relative path": [("static/*", 60)],
    "a lifetime below 0": [("/static/*", -1)],
    "a lifetime as text": [("/static/*", "60")],
}


@pytest.mark.parametrize("rules", WRONG.values(), ids=WRONG)
def test_rules_of_another_form_are_refused(rules: Any) -> None:
    """With the form that they have, or what is wrong with the lifetime."""
    with pytest.raises(ConfigurationError):
        HeaderOptions(rules=rules)


@pytest.mark.parametrize("ttl", [-1, "60", True, float("nan")])
def test_a_default_of_another_form_is_refused(ttl: Any) -> None:
    """It is seconds, or a duration."""
    with pytest.raises(ConfigurationError):
        HeaderOptions(default_ttl=ttl)


def test_options_with_rules_are_equal_where_they_say_the_same() -> None:
    """They are values."""
    one = HeaderOptions(rules=[("/a", 60)])
    assert one == HeaderOptions(rules=(("/a", HeaderRule(timedelta(minutes=1))),))
    assert hash(one) == hash(HeaderOptions(rules=[("/a", 60.0)]))
    assert repr(one) == repr(HeaderOptions(rules=[("/a", 60)]))
