"""The example's passwords and tokens, which people will copy."""

from __future__ import annotations

from example_app import security


def test_a_password_verifies_only_itself() -> None:
    """Hashes are salted: two of one password differ, both verify it and nothing else."""
    one, two = security.hash_password("wonderland"), security.hash_password("wonderland")
    assert one != two
    assert security.verify_password("wonderland", one)
    assert security.verify_password("wonderland", two)
    assert not security.verify_password("Wonderland", one)


def test_a_token_names_its_user_until_it_expires(monkeypatch) -> None:
    """A token is good for an hour."""
    token = security.make_token(7)
    assert security.read_token(token) == 7
    monkeypatch.setattr(security.time, "time", lambda: float(token.split(".")[1]))
    assert security.read_token(token) is None


def test_a_token_that_was_touched_is_refused() -> None:
    """Another user's number, another expiry, garbage: none is a token."""
    user, expiry, signature = security.make_token(7).split(".")
    forged = [f"8.{expiry}.{signature}", f"{user}.{int(expiry) + 1}.{signature}", "", ".", "a.b.c", "7", "é.é.é"]
    assert [security.read_token(token) for token in forged] == [None] * len(forged)
