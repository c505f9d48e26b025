"""Missing tags and unpurged pages are found by the rows that requests read and change."""

from __future__ import annotations

import pytest

from tests.pytest_plugin.conftest import Run

SEARCHES = ("--cacheinval-missing-tags", "--cacheinval-unpurged")


def test_a_row_that_no_tag_names_fails_the_test(run: Run) -> None:
    """The page is right now; the row, the tags that it has and the one to write are named."""
    ran = run("shelves", 'def test_it(client):\n    client.get("/next/1")\n', "--cacheinval-missing-tags")
    assert ran.counts == {"failed": 1}, ran.text
    assert "missing-tags: GET /next/1 was made of rows that none of its tags names" in ran.text
    assert "rows:     Book(2)" in ran.text
    assert "its tags: book:1" in ran.text
    assert "tags.add('book:2')" in ran.text


@pytest.mark.parametrize("mutation", ["/relabel/1?label=new", "/relabel-all?label=new"], ids=["a-flush", "a-statement"])
def test_a_page_that_a_mutation_left_standing_fails_the_test(run: Run, mutation: str) -> None:
    """A row of a class that nothing maps to tags was changed; nobody has to ask for the page again."""
    source = f'def test_it(client):\n    client.get("/shelves/1")\n    client.put("{mutation}")\n'
    ran = run("shelves", source, "--cacheinval-unpurged")
    assert ran.counts == {"failed": 1}, ran.text
    assert "changed a row that GET /shelves/1 had read, and left the page standing" in ran.text
    assert "with the cache:    200 '\"novels\"'" in ran.text
    assert "without the cache: 200 '\"new\"'" in ran.text
    assert "dependencies=[invalidates('shelf:1')]" in ran.text


def test_a_page_with_the_tag_of_another_row_is_left_standing(run: Run) -> None:
    """Where the change of the row purges tags, the one to add to the page is named."""
    source = 'def test_it(client):\n    client.get("/next/1")\n    client.put("/retitle/2?title=new")\n'
    ran = run("shelves", source, "--cacheinval-unpurged")
    assert ran.counts == {"failed": 1}, ran.text
    assert "at GET /next/{book_id}, tags.add('book:2'), which the change of the row purges" in ran.text


RIGHT = """
def test_it(client):
    for _ in range(2):
        for path in ("/books", "/books/1", "/named/2", "/guarded", "/shelves/1"):
            assert client.get(path).status_code == 200
    client.put("/retitle/1?title=new")
    assert client.get("/books/1").json() == "new"
    client.put("/annotate/2?note=not shown")
    client.put("/forget/1")
    client.get("/books")
"""


def test_right_routes_are_passed_over(run: Run) -> None:
    """Tags of any kind that name the row, rows of guards, purged pages, what is not shown and what is rolled back."""
    ran = run("shelves", RIGHT, *SEARCHES)
    assert ran.counts == {"passed": 1}, ran.text
    assert " 0 found" in ran.text


def test_a_row_that_is_read_once_more_counts_for_the_page_it_was_read_for(run: Run) -> None:
    """A page that was refilled after a purge is looked at again."""
    ran = run(
        "shelves",
        """
        def test_it(client):
            client.get("/shelves/1")
            client.portal.call(cache.invalidate, "shelf:1")
            client.get("/shelves/1")
            client.put("/relabel/1?label=new")
        """,
        "--cacheinval-unpurged",
    )
    assert ran.counts == {"failed": 1}, ran.text


def test_a_search_for_missing_tags_that_compares_nothing_says_so(run: Run) -> None:
    """No fault was found where no class has tags, which is not the same as that there is none."""
    source = 'def test_it(client):\n    client.get("{}")\n'
    ran = run("shelves", source.format("/shelves/1"), "--cacheinval-missing-tags")
    assert ran.counts == {"passed": 1}, ran.text
    assert "missing tags: nothing was compared" in ran.text
    assert "nothing was compared" not in run("shelves", source.format("/books/1"), "--cacheinval-missing-tags").text


def test_without_the_searches_nothing_is_looked_at(run: Run) -> None:
    """The plugin alone changes no result, and says nothing."""
    source = 'def test_it(client):\n    client.get("/next/1")\n    client.put("/retitle/2?title=new")\n'
    ran = run("shelves", source)
    assert ran.counts == {"passed": 1}, ran.text
    assert "asked again" not in ran.text


def test_sessions_in_threads_are_seen_behind_layers_too(run: Run) -> None:
    """Plain functions run in threads, and a layer that the cache does not know runs the app in a task of its own."""
    ran = run(
        "cellar",
        """
        def test_right(client):
            client.get("/bottles/1")
            client.put("/rename/1?name=madeira")
            assert client.get("/bottles/1").json() == "madeira"

        @pytest.mark.cacheinval(unpurged=False)
        def test_missing(client):
            client.get("/next/1")

        @pytest.mark.cacheinval(missing_tags=False)
        def test_unpurged(client):
            client.get("/next/1")
            client.put("/rename/2?name=madeira")
        """,
        *SEARCHES,
    )
    assert ran.counts == {"passed": 1, "failed": 2}, ran.text
    assert "rows:     Bottle(2)" in ran.text
    assert "changed a row that GET /next/1 had read" in ran.text
