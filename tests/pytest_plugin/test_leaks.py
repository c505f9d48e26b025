"""The leak check finds what one caller is handed of another, and what is outdated."""

from __future__ import annotations

import pytest

from tests.pytest_plugin.conftest import Run


@pytest.mark.parametrize(
    ("asks", "said"),
    [
        ('client.get("/me", headers=ANN)', "If not, this line works: cached(..., partition_by=current_user)."),
        ('client.get("/checked", headers=ANN)', "If not, this line works: cached(..., guarded_by=current_user)."),
        (
            'client.get("/request", headers={"X-Plan": "gold"})',
            "request_is_shared=True is not so: take it out. Take what tells callers apart",
        ),
    ],
    ids=["a-value", "a-check", "the-request"],
)
def test_a_page_that_another_caller_would_not_get_fails_the_test(run: Run, asks: str, said: str) -> None:
    """One request by one caller is enough: nobody asks too. The route, both callers and the line to write are named."""
    ran = run("leaky", f"def test_it(client):\n    {asks}\n", "--cacheinval-leaks")
    assert ran.counts == {"failed": 1}, ran.text
    assert "hands to one caller what was made for another" in ran.text
    assert "handed to:         a caller without credentials" in ran.text
    assert said in ran.text


def test_a_caller_of_an_earlier_test_is_known(run: Run) -> None:
    """What only a layer outside of the cache tells apart, in a context variable, is seen with the callers of other tests."""
    ran = run(
        "leaky",
        """
        def test_first(client):
            client.get("/uncached")
            client.get("/prices/1", headers={"X-Tenant": "acme"})

        def test_second(client):
            client.get("/tenant", headers={"X-Tenant": "bolt"})
        """,
        "--cacheinval-leaks",
    )
    assert ran.counts == {"failed": 1, "passed": 1}, ran.text
    assert "made for:          x-tenant: bolt" in ran.text
    assert "handed to:         x-tenant: acme" in ran.text


def test_the_second_caller_is_shown_to_have_got_the_first_ones_page(run: Run) -> None:
    """A hit is compared with what the app says to its own caller."""
    ran = run(
        "leaky",
        """
        @pytest.mark.cacheinval(leaks=False)
        def test_first(client):
            assert client.get("/me", headers=ANN).json() == "ann"
            assert client.get("/me", headers=BOB).json() == "ann"

        def test_second(client):
            client.get("/mine", headers=BOB)
            client.get("/me", headers=ANN)
        """,
        "--cacheinval-leaks",
    )
    assert ran.counts == {"failed": 1, "passed": 1}, ran.text
    assert "made for:          authorization: Bearer ann" in ran.text


def test_what_was_changed_without_a_purge_fails_the_test(run: Run) -> None:
    """A fresh hit that the app would no longer answer so is named with its tags."""
    ran = run(
        "leaky",
        """
        import leaky

        def test_it(client):
            client.get("/prices/1")
            leaky.prices[1] += 1
            client.get("/prices/1")
        """,
        "--cacheinval-leaks",
    )
    assert ran.counts == {"failed": 1}, ran.text
    assert "outdated: GET /prices/1 hands out what the app no longer says" in ran.text
    assert "has to purge 'price:1'" in ran.text


QUIET = """
def test_it(client):
    for caller in ({}, ANN, BOB, ANN):
        for path in ("/mine", "/guarded", "/prices/1", "/number", "/uncached", "/soft"):
            client.get(path, headers=caller)
    client.put("/prices/1?price=31")
    assert client.get("/prices/1", headers=ANN).json() == 31
"""


def test_right_routes_are_passed_over(run: Run) -> None:
    """Partitions, guards, purged pages, uncached routes and pages that differ each time are no faults."""
    ran = run("leaky", QUIET.replace(', "/soft"', ""), "--cacheinval-leaks")
    assert ran.counts == {"passed": 1}, ran.text
    assert " 0 found" in ran.text
    assert "unsteady" in ran.text


def test_an_app_that_fails_when_asked_again_is_no_fault(run: Run) -> None:
    """What it raises reaches nobody, and is counted."""
    ran = run(
        "leaky",
        'def test_it(client):\n    assert client.get("/fails").json() == 1\n    client.get("/fails", headers=ANN)\n',
        "--cacheinval-leaks",
    )
    assert ran.counts == {"passed": 1}, ran.text
    assert "failed" in ran.text


def test_the_check_leaves_the_cache_as_it_was(run: Run) -> None:
    """It stores nothing, counts nothing and is told to no subscriber: tests see the same with it and without."""
    source = """
    def test_it(client):
        told = []
        cache.subscribe(lambda event: told.append((event.path, event.result)))
        client.get("/mine", headers=BOB)
        client.get("/mine", headers=ANN)
        client.get("/prices/1", headers=ANN)
        client.get("/prices/1")
        assert told == [("/mine", "miss"), ("/mine", "miss"), ("/prices/1", "miss"), ("/prices/1", "hit")]
        counted = cache.statistics()
        assert sum(each.requests for each in counted.routes.values()) == 4
    """
    for options in ((), ("--cacheinval-leaks",)):
        ran = run("leaky", source, *options)
        assert ran.counts == {"passed": 1}, ran.text


def test_a_test_that_fails_already_keeps_its_own_error(run: Run) -> None:
    """The fault is a note below it."""
    ran = run(
        "leaky", 'def test_it(client):\n    client.get("/me", headers=ANN)\n    assert 1 == 2\n', "--cacheinval-leaks"
    )
    assert ran.counts == {"failed": 1}, ran.text
    assert "assert 1 == 2" in ran.text
    assert "hands to one caller what was made for another" in ran.text


def test_requests_of_a_fixture_count(run: Run) -> None:
    """What a fixture asks while it is made or ended fails the test too."""
    ran = run(
        "leaky",
        """
        @pytest.fixture
        def before(client):
            client.get("/me", headers=ANN)

        @pytest.fixture
        def after(client):
            yield
            client.get("/checked", headers=ANN)

        def test_before(before):
            pass

        def test_after(after):
            pass
        """,
        "--cacheinval-leaks",
    )
    assert ran.counts == {"failed": 1, "passed": 1, "error": 1}, ran.text


def test_a_partition_that_is_too_coarse_is_found_by_the_second_caller(run: Run) -> None:
    """The first caller of a key fills it; the next of the same key, in whatever order, is handed that."""
    ran = run(
        "leaky",
        """
        @pytest.mark.parametrize("names", [("ann", "amy"), ("bob", "ann", "amy"), ("ann", "bob")])
        def test_it(client, names):
            for name in names:
                client.get("/coarse", headers={"Authorization": f"Bearer {name}"})
        """,
        "--cacheinval-leaks",
    )
    assert ran.counts == {"failed": 3}, ran.text
    assert "made for:          authorization: Bearer ann\n  handed to:         authorization: Bearer amy" in ran.text


def test_callers_at_the_same_time_know_of_each_other(run: Run) -> None:
    """Where all ask at once, one gets another's page: a leak, and no page that is out of date."""
    ran = run(
        "leaky",
        """
        import asyncio
        import httpx

        def test_it(http_cache):
            async def ask():
                transport = httpx.ASGITransport(app)
                async with http_cache, httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                    await asyncio.gather(*(client.get("/me", headers=each) for each in (ANN, BOB) * 5))

            asyncio.run(ask())
        """,
        "--cacheinval-leaks",
    )
    assert ran.counts == {"failed": 1}, ran.text
    assert "leak: GET /me hands to one caller what was made for another" in ran.text
    assert "outdated" not in ran.text


def test_requests_at_the_same_time_are_no_faults(run: Run) -> None:
    """Reads and writes side by side, through an asynchronous client: what a write overtakes is not compared."""
    ran = run(
        "leaky",
        """
        import asyncio
        import httpx

        def test_it(http_cache, assert_never_stale):
            async def ask():
                transport = httpx.ASGITransport(app)
                async with http_cache, httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                    for price in range(30):
                        reads = [client.get("/prices/1", headers=caller) for caller in ({}, ANN, BOB)]
                        await asyncio.gather(*reads, client.put(f"/prices/1?price={price}"), *(
                            client.get("/prices/1") for _ in range(3)
                        ))
            asyncio.run(ask())
        """,
        "--cacheinval-leaks",
    )
    assert ran.counts == {"passed": 1}, ran.text
    assert " 0 found" in ran.text


def test_an_outdated_page_without_a_tag_is_to_be_given_one(run: Run) -> None:
    """There is no tag to purge, so the line to write begins with one."""
    source = 'def test_it(client):\n    client.get("/plain")\n    prices[1] = 77\n    client.get("/plain")\n'
    ran = run("leaky", f"from leaky import prices\n{source}", "--cacheinval-leaks")
    assert ran.counts == {"failed": 1}, ran.text
    assert "write: give GET /plain a tag, cached(..., tags=[...]), and purge it" in ran.text
