"""The example app, served by uvicorn and used with a real browser."""

from __future__ import annotations

from functools import partial

import httpx
import pytest

from tests.servers import until
from tests.system.browser import Browser

pytestmark = pytest.mark.timeout(180)  # a browser's first start on a small machine

AT, STATUS, HOW = 1, 3, 4  # columns of the page's strip: who answered, with what, and how the answer came


def test_the_page_shows_hits_and_a_discount_is_seen_at_once(shop: str, browser: Browser) -> None:
    """In the browser: a car is a miss, then a hit; a discount purges it; its new price is there with the next request."""
    browser.go(f"{shop}/")
    card = "document.querySelector('.card[data-id]')"
    number = browser.run(f"return {card}.dataset.id")
    full_price = browser.run(f"return {card}.querySelector('.price b').textContent")
    read = f".card[data-id='{number}'] button[data-read]"
    discount = f".card[data-id='{number}'] button[data-discount]"

    path = f"/products/{number}"
    assert "fwd=uri-miss" in browser.click(read, f"GET {path}")[HOW]
    assert browser.click(read, f"GET {path}")[HOW].startswith("hit")
    assert browser.click(discount, f"POST {path}/discount")[HOW] == "purge done"

    browser.go(f"{shop}/")
    assert browser.run(f"return {card}.querySelector('.price s').textContent") == full_price
    assert browser.run(f"return {card}.querySelector('.price em').textContent") == "−10 %"
    assert browser.complaints() == []


def test_a_user_sees_only_the_own_basket(shop: str, browser: Browser) -> None:
    """Alice's stored basket is a hit for alice, and neither bob nor nobody gets it."""
    browser.go(f"{shop}/")
    alice, bob = ("button[data-path='/me/basket'][data-as='alice']", "button[data-path='/me/basket'][data-as='bob']")
    nobody = "button[data-path='/me/basket']:not([data-as])"

    request = "GET /me/basket"
    assert "fwd=uri-miss" in browser.click(alice, request)[HOW]
    assert browser.click(alice, request)[HOW].startswith("hit")
    assert not browser.click(bob, request)[HOW].startswith("hit")
    assert browser.click(nobody, request)[STATUS] == "401"


def test_the_page_is_stored_and_the_browser_revalidates_it(shop: str, browser: Browser) -> None:
    """The page that the first visit stored is a hit for others, and its validator saves sending it again."""
    browser.go(f"{shop}/")
    cards = browser.run("return document.querySelectorAll('.card').length")
    stored = httpx.get(f"{shop}/")
    again = httpx.get(f"{shop}/", headers={"if-none-match": stored.headers["etag"]})

    assert stored.headers["cache-status"].startswith("cacheinval; hit")
    assert stored.text.count('class="card"') == cards > 0
    assert (again.status_code, again.content) == (304, b"")


def shows_discount(url: str) -> bool:
    return httpx.get(url).json()["discount_percent"] == 10


def test_a_discount_given_at_one_replica_is_seen_at_the_others(replicated_shop: list[str], browser: Browser) -> None:
    """The page of one replica asks all of them: what one has made is a hit at another, and a discount is seen at each."""
    browser.go(f"{replicated_shop[0]}/")
    names = "return [...document.querySelectorAll('[data-replica]')].map(button => button.textContent)"
    until(lambda: browser.run(names) == ["A", "B", "C"], "the page knows the replicas")
    number = browser.run("return document.querySelector('.card[data-id]').dataset.id")
    read, path = f".card[data-id='{number}'] button[data-read]", f"/products/{number}"

    first = browser.click(read, f"GET {path}")
    assert (first[AT], "fwd=uri-miss" in first[HOW]) == ("A", True)
    browser.run("document.querySelector(\"[data-replica='B']\").click()")
    second = browser.click(read, f"GET {path}")
    assert (second[AT], second[HOW].startswith("hit")) == ("B", True)

    discount = f".card[data-id='{number}'] button[data-discount]"
    assert browser.click(discount, f"POST {path}/discount")[AT : HOW + 1] == ["B", "admin", "200", "purge done"]
    for url, name in zip(replicated_shop, "ABC", strict=True):
        until(partial(shows_discount, f"{url}{path}"), f"the discount at {name}")
        assert httpx.get(f"{url}{path}").headers["x-replica"] == name
    assert browser.complaints() == []
