"""A pytest plugin: fixtures for tests of apps that use the cache, and searches that run beside them.

It does nothing until it is named (`-p fastapi_cacheinval.pytest_plugin`, or `pytest_plugins` in the topmost
`conftest.py`), and its searches do nothing until they are asked for. It needs pytest 8 or later.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from importlib import import_module
from importlib.util import find_spec
from typing import Any, cast

import pytest

from fastapi_cacheinval.cache import HTTPCache
from fastapi_cacheinval.core.events import Receipt
from fastapi_cacheinval.testing import FakeClock, capture_invalidations
from fastapi_cacheinval.testing.searches.findings import Costs, Finding
from fastapi_cacheinval.testing.searches.rows import Row, note_changed, note_read
from fastapi_cacheinval.testing.searches.search import Search, Wanted
from fastapi_cacheinval.testing.searches.standing_in import isolated, stand_around

__all__ = ["assert_never_stale", "cache_clock", "cache_invalidations", "cache_under_test", "http_cache"]

_SEARCHES = {
    "leaks": "ask each GET of a cached route again, without the cache and as the other callers that were met",
    "missing_tags": "look for rows that a stored page was made of and that none of its tags names (SQLAlchemy)",
    "unpurged": "look for stored pages that a mutation has changed a row of and left standing (SQLAlchemy)",
}
_MARK = "cacheinval(leaks=True, missing_tags=True, unpurged=True): switch searches on or off for a test."
_OUTPUT = "cacheinval_costs"


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options, and their like in the ini file."""
    group = parser.getgroup("cacheinval", "searches of fastapi-cacheinval")
    for name, what in _SEARCHES.items():
        group.addoption(f"--cacheinval-{name.replace('_', '-')}", action="store_true", default=False, help=what)
        parser.addini(f"cacheinval_{name}", what, type="bool", default=False)
    group.addoption(
        "--cacheinval-share", type=_share, default=None, metavar="0.1", help="the share of requests to look at"
    )
    parser.addini("cacheinval_share", "the share of requests that searches look at", default="1")
    parser.addini("cacheinval_cache", "the app's own cache, for the fixture http_cache: shop.main:cache", default="")


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1
    if not 0 < share <= 1:
        raise pytest.UsageError(f"cacheinval-share is a number above 0, of at most 1, not {text!r}.")
    return share


class _Run:
    """The searches of this process."""

    def __init__(self, config: pytest.Config) -> None:
        option: Callable[[str], Any] = config.getoption
        given = option("cacheinval_share")
        self.search = Search(_share(config.getini("cacheinval_share")) if given is None else given)
        self.always = Wanted(
            **{name: bool(option(f"cacheinval_{name}") or config.getini(f"cacheinval_{name}")) for name in _SEARCHES}
        )
        self._needs_sqlalchemy(self.always)
        self._end = [stand_around(self.search)]
        self._observes = False
        # Those of other processes, which have told theirs.
        self.costs = Costs()

    @staticmethod
    def _needs_sqlalchemy(wanted: Wanted) -> None:
        if (wanted.missing_tags or wanted.unpurged) and find_spec("sqlalchemy") is None:
            raise pytest.UsageError("missing tags and unpurged pages are searched for in SQLAlchemy's sessions only.")

    def begin(self, item: pytest.Item) -> None:
        """Look for what the run and the test's marks say."""
        wanted = {name: getattr(self.always, name) for name in _SEARCHES}
        for mark in reversed(list(item.iter_markers("cacheinval"))):
            unknown = mark.kwargs.keys() - _SEARCHES.keys()
            if unknown or mark.args:
                raise pytest.UsageError(f"{item.nodeid}: the mark is {_MARK}")
            wanted.update(mark.kwargs)
        chosen = Wanted(**wanted)
        self._needs_sqlalchemy(chosen)
        self.search.begin(item.nodeid, chosen)
        if (chosen.missing_tags or chosen.unpurged) and not self._observes:
            self._observe()

    def _observe(self) -> None:
        self._observes = True
        observing = import_module("fastapi_cacheinval.contrib.sqlalchemy.observing")
        self._end.append(observing.observe_rows(_read, _changed))

    def end(self) -> None:
        """Leave everything as it was."""
        while self._end:
            self._end.pop()()


def _read(model: str, key: tuple[object, ...] | None, tags: tuple[str, ...] | None) -> None:
    note_read(Row(model, key, tags))


def _changed(model: str, key: tuple[object, ...] | None, tags: tuple[str, ...] | None) -> None:
    note_changed(Row(model, key, tags))


_RUN = pytest.StashKey[_Run]()


def pytest_configure(config: pytest.Config) -> None:
    """Stand around the middleware."""
    config.addinivalue_line("markers", _MARK)
    config.stash[_RUN] = _Run(config)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Leave everything as it was."""
    run = config.stash.get(_RUN, None)
    if run is not None:
        run.end()


# -- around a test --------------------------------------------------------------------------------


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, None, None]:
    """The searches begin with the fixtures, which may make requests."""
    wrong = ""
    try:
        item.config.stash[_RUN].begin(item)
    except pytest.UsageError as error:
        wrong = str(error)
    yield
    if wrong:
        pytest.fail(wrong, pytrace=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """A fault fails the test; one that fails already says it besides."""
    search = item.config.stash[_RUN].search
    try:
        result = yield
    except BaseException as error:
        for finding in search.findings:
            error.add_note(str(finding))
        search.findings.clear()
        raise
    _fail(search.findings)
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, object, object]:
    """What fixtures ask for while they end counts as well."""
    result = yield
    _fail(item.config.stash[_RUN].search.end())
    return result


def _fail(findings: list[Finding]) -> None:
    if findings:
        said = "\n".join(map(str, findings))
        findings.clear()
        pytest.fail(said, pytrace=False)


# -- what it cost ---------------------------------------------------------------------------------


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker of pytest-xdist tells its costs to the process that prints them."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output[_OUTPUT] = session.config.stash[_RUN].search.costs.as_dict()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """A worker has ended."""
    told = getattr(node, "workeroutput", {}).get(_OUTPUT)
    if told is not None:
        cast("pytest.Config", node.config).stash[_RUN].costs.add(told)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say what the searches did, and how long the tests waited for them."""
    run = config.stash[_RUN]
    run.costs.add(run.search.costs.as_dict())
    if run.costs.checked or run.always:
        share = "" if run.search.share >= 1 else f" (a share of {run.search.share:g})"
        terminalreporter.section("cacheinval", sep="-")
        terminalreporter.line(f"{run.costs}{share}")
        if run.always.missing_tags and not run.costs.rows:
            terminalreporter.line(
                "missing tags: nothing was compared. No cached route read a row that has tags: name its class in "
                "collect_changes().",
                yellow=True,
            )


# -- fixtures -------------------------------------------------------------------------------------


@pytest.fixture
def cache_clock() -> FakeClock:
    """The clock of `http_cache`, which stands still until `tick(seconds)`."""
    return FakeClock()


@pytest.fixture
def cache_under_test(request: pytest.FixtureRequest) -> HTTPCache | None:
    """The app's own cache, by the ini option `cacheinval_cache`; override it where an option cannot say it."""
    named = str(request.config.getini("cacheinval_cache"))
    if not named:
        return None
    module, _, path = named.partition(":")
    try:
        found: Any = import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise _no_cache(named) from error
    if not isinstance(found, HTTPCache):
        raise _no_cache(named)
    return found


def _no_cache(named: str) -> pytest.UsageError:
    return pytest.UsageError(f"cacheinval_cache names an HTTPCache as module:name, not {named!r}.")


@pytest.fixture
def http_cache(cache_under_test: HTTPCache | None, cache_clock: FakeClock) -> Iterator[HTTPCache]:
    """A cache of the test's own, with `cache_clock`; nothing is kept beyond the test, and no Redis is asked.

    The app's own cache, where `cache_under_test` names one: it is empty for the test, and as it was after it. Else a
    new one, for an app that the test makes.
    """
    if cache_under_test is None:
        yield HTTPCache(clock=cache_clock)
        return
    with isolated(cache_under_test, cache_clock) as cache:
        yield cache


@pytest.fixture
def cache_invalidations(http_cache: HTTPCache) -> Iterator[list[Receipt]]:
    """The receipts of the purges that `http_cache` makes in the test, in order."""
    with capture_invalidations(http_cache) as receipts:
        yield receipts


@pytest.fixture
def assert_never_stale(request: pytest.FixtureRequest) -> Callable[[], None]:
    """Each answer from the cache, of any cache, is compared with what the app says then; a difference fails the test.

    Call it to have the test fail at that line; else it fails at its end.
    """
    search = request.config.stash[_RUN].search
    search.also(never_stale=True)

    def check() -> None:
        __tracebackhide__ = True
        _fail(search.findings)

    return check
