"""The fixtures give tests a cache of their own, its time, its purges, and the word that nothing was stale."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.pytest_plugin.conftest import APPS, Run, start


def test_an_apps_own_cache_is_empty_for_each_test_and_has_its_time(run: Run) -> None:
    """The module's cache is another inside each test, by the clock that is ticked, and itself again afterwards."""
    ran = run(
        "leaky",
        """
        from fastapi_cacheinval.testing import assert_hit, assert_miss

        @pytest.mark.parametrize("_", range(2))
        def test_it(client, cache_clock, _):
            assert_miss(client.get("/prices/1"))
            assert_hit(client.get("/prices/1"))
            cache_clock.tick(70)
            assert_miss(client.get("/prices/1"))

        def test_without_the_fixture():
            with TestClient(app) as client:
                assert_miss(client.get("/prices/1"))
            assert cache.clock.now() != 1000

        def test_after_it(client):
            assert_miss(client.get("/prices/1"))
            assert cache.clock.now() == 1000
        """,
    )
    assert ran.counts == {"passed": 4}, ran.text


def test_the_apps_own_cache_is_named_by_an_ini_option(tmp_path: Path) -> None:
    """`cacheinval_cache` names it where no fixture does."""
    shutil.copy(APPS / "leaky.py", tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\ncacheinval_cache = leaky:cache\n")
    (tmp_path / "test_it.py").write_text(
        "import leaky\n\ndef test_it(http_cache):\n    assert http_cache is leaky.cache\n"
    )
    ran = start(tmp_path)
    assert ran.counts == {"passed": 1}, ran.text


@pytest.mark.parametrize("named", ["leaky", "leaky:app", "leaky:missing", "missing:cache"])
def test_an_option_that_names_no_cache_is_an_error_of_the_test(tmp_path: Path, named: str) -> None:
    """The message has what was named."""
    shutil.copy(APPS / "leaky.py", tmp_path)
    (tmp_path / "pytest.ini").write_text(f"[pytest]\ncacheinval_cache = {named}\n")
    (tmp_path / "test_it.py").write_text("def test_it(http_cache):\n    pass\n")
    ran = start(tmp_path)
    assert ran.counts == {"error": 1}, ran.text
    assert f"cacheinval_cache names an HTTPCache as module:name, not '{named}'" in ran.text


def test_purges_are_recorded(run: Run) -> None:
    """`cache_invalidations` has the receipts of the app's purges, those of watched sessions too."""
    ran = run(
        "shelves",
        """
        def test_it(client, cache_invalidations):
            client.put("/retitle/1?title=new")
            assert [purge.tags for purge in cache_invalidations] == [("book:1", "books")]
        """,
    )
    assert ran.counts == {"passed": 1}, ran.text


def test_a_new_cache_is_given_where_none_is_named(run: Run) -> None:
    """For an app that the test makes."""
    ran = run(
        "leaky",
        """
        from fastapi import FastAPI
        from fastapi_cacheinval import CacheMiddleware, cached
        from fastapi_cacheinval.testing import assert_hit, assert_miss

        @pytest.fixture
        def cache_under_test():
            return None

        def test_it(http_cache, cache_clock):
            assert http_cache is not cache
            app = FastAPI()
            app.add_middleware(CacheMiddleware, cache=http_cache)

            @app.get("/", dependencies=[cached(ttl=60)])
            async def read() -> int:
                return 1

            client = TestClient(app)
            assert_miss(client.get("/"))
            cache_clock.tick(30)
            assert_hit(client.get("/"))
        """,
    )
    assert ran.counts == {"passed": 1}, ran.text


def test_nothing_stale_is_handed_out_unseen(run: Run) -> None:
    """`assert_never_stale` fails a test at its end, or where it is called, also for what a policy allows to be stale."""
    ran = run(
        "leaky",
        """
        import leaky

        def test_well(client, assert_never_stale):
            client.get("/prices/1")
            client.put("/prices/1?price=31")
            client.get("/prices/1")

        def test_outdated(client, assert_never_stale):
            client.get("/prices/1")
            leaky.prices[1] += 1
            client.get("/prices/1")

        def test_stale(client, assert_never_stale, cache_clock):
            client.get("/soft")
            leaky.prices[1] += 1
            cache_clock.tick(90)
            client.get("/soft")
            assert_never_stale()
            raise AssertionError("not reached")

        def test_not_asked_for(client):
            client.get("/prices/1")
            leaky.prices[1] += 1
            client.get("/prices/1")
        """,
    )
    assert ran.counts == {"passed": 2, "failed": 2}, ran.text
    assert "not reached" not in ran.text
    assert ran.text.count("hands out what the app no longer says") >= 2
