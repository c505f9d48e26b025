"""The site's own tests: they know of no cache."""

from __future__ import annotations

from starlette.testclient import TestClient

ALICE, BOB = {"Cookie": "session=session-of-alice"}, {"Cookie": "session=session-of-bob"}


def test_every_page_has_links_and_forbids_frames(client: TestClient) -> None:
    """By the class of its route, each time."""
    for _ in range(2):
        for path, headers in (("/", {}), ("/account", ALICE)):
            answer = client.get(path, headers=headers)
            assert "<a href='http://testserver/account'>" in answer.text
            assert answer.headers["x-frame-options"] == "DENY"


def test_each_user_has_an_account(client: TestClient) -> None:
    """And nobody else's."""
    for _ in range(2):
        assert "alice likes it light" in client.get("/account", headers=ALICE).text
        assert "bob likes it light" in client.get("/account", headers=BOB).text


def test_who_has_not_signed_in_is_sent_to_the_front_page(client: TestClient) -> None:
    """Also where a user has just read theirs, and after signing out."""
    client.get("/account", headers=ALICE)
    answer = client.get("/account")
    assert (answer.status_code, answer.headers["location"]) == (303, "http://testserver/")
    assert client.post("/sign-out", headers=ALICE).status_code == 200
    assert client.get("/account", headers=ALICE).status_code == 303


def test_a_theme_is_seen_at_once(client: TestClient) -> None:
    """By its user."""
    client.get("/account", headers=ALICE)
    assert client.post("/theme", params={"name": "dark"}, headers=ALICE).status_code == 303
    assert "alice likes it dark" in client.get("/account", headers=ALICE).text
    assert "bob likes it light" in client.get("/account", headers=BOB).text


def test_a_new_session_is_signed_in(client: TestClient) -> None:
    """With the cookie that it was given."""
    answer = client.post("/sign-in", params={"name": "carol"})
    session = answer.cookies["session"]
    client.cookies.clear()
    assert "carol likes it light" in client.get("/account", headers={"Cookie": f"session={session}"}).text
