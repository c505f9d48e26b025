"""Plumbing for the whole run: the event loop, hypothesis's profile, and no skipped tests."""

from __future__ import annotations

from collections.abc import Generator
from zlib import crc32

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "suite",
    deadline=None,  # the time limit per test is the one that counts; a shared machine makes single examples slow
    derandomize=True,  # the same examples everywhere: a failure in CI is a failure here
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "explore",  # other examples at each run, to look for what the suite has not met: --hypothesis-profile=explore
    settings.get_profile("suite"),
    derandomize=False,
    print_blob=True,
)
settings.load_profile("suite")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """ASGI servers of FastAPI apps run asyncio, so the tests do."""
    return "asyncio"


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--share 2/3`: the second of three shares of the tests, the same ones everywhere; all shares together are all tests."""
    parser.addoption("--share", metavar="K/N", help="run only the K-th of N shares of the tests")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the tests of other shares; the cases of one test stay together."""
    asked = config.getoption("share")
    if asked is None:
        return
    share, _, count = asked.partition("/")
    if not (share.isdecimal() and count.isdecimal() and 1 <= int(share) <= int(count)):
        raise pytest.UsageError(f"--share is K/N, such as 2/3: {asked!r}")
    others = [item for item in items if crc32(item.nodeid.partition("[")[0].encode()) % int(count) != int(share) - 1]
    config.hook.pytest_deselected(items=others)
    left_out = set(map(id, others))
    items[:] = [item for item in items if id(item) not in left_out]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A skipped test is a failed one: what is not run is not known to work."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which fails the run: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for a module that skips itself while it is collected."""
    report = yield
    if report.skipped:
        report.outcome = "failed"
        report.longrepr = f"skipped, which fails the run: {report.longrepr}"
    return report
