"""The inspector in a real browser, on three replicas of the example app over a Valkey that goes away."""

from __future__ import annotations

import asyncio
import re
from urllib.parse import quote

import httpx
import pytest
from selenium.webdriver.common.keys import Keys

from example_app.main import NAMESPACE
from example_app.seed import USERS
from fastapi_cacheinval import HTTPCache
from tests.system.browser import Browser
from tests.system.conftest import Fleet, discount

pytestmark = pytest.mark.timeout(240)  # a browser and three replicas on a small machine


def events(page: Browser, kind: str) -> list[str]:
    """What the rows of one kind say, the newest first."""
    return page.texts(f"#events tr[data-kind='{kind}']")


async def purge(url: str, *tags: str, path: str = "") -> None:
    """Purge as another program."""
    async with HTTPCache.from_url(url, namespace=NAMESPACE) as cache:
        await cache.invalidate(*tags)
        if path:
            await cache.invalidate_url(path)


@pytest.mark.parametrize(("who", "status"), [(None, 401), (("bob", USERS["bob"][0]), 403), (("admin", "wrong"), 401)])
@pytest.mark.parametrize("path", ["", "static/inspector.js", "api/state", "api/events"])
def test_the_guard_refuses(shop: str, who: tuple[str, str] | None, status: int, path: str) -> None:
    """Nobody but an administrator sees anything of it, on a real server."""
    assert httpx.get(f"{shop}/_cache/{path}", auth=who, timeout=30).status_code == status


def test_a_miss_a_hit_and_a_purge_arrive_while_one_looks(fleet: Fleet, page: Browser) -> None:
    """A request is on the page with its reason, and so is a purge of another replica, with its tag."""
    here, other = fleet.urls[:2]
    httpx.get(f"{here}/products/1")
    page.until(lambda: any("/products/1" in row and "fwd=uri-miss" in row for row in events(page, "miss")), "the miss")
    httpx.get(f"{here}/products/1")
    page.until(lambda: any("/products/1" in row and "hit; ttl=" in row for row in events(page, "hit")), "the hit")
    page.until(lambda: page.text("#ratio").endswith("%"), "the hit ratio")

    discount(other, 1, 10)
    (row,) = page.until(lambda: [row for row in events(page, "purge") if "product:1" in row], "the purge")
    assert re.search(r"from \S+/\d+, applied after", row)
    page.until(
        lambda: any("GET /products/{product_id}" in row for row in page.texts("#routes-table tbody tr")), "the route"
    )
    page.until(lambda: len(page.texts("#replicas-table tbody tr")) == 3, "three replicas")
    rows = page.texts("#replicas-table tbody tr")
    assert "this one" in rows[0]
    assert all("in touch" in row for row in rows)


def test_a_url_is_explained(fleet: Fleet, page: Browser) -> None:
    """A click on a request says why it is a hit; after a purge of another replica it is a miss, and the page says by whom."""
    here, other = fleet.urls[:2]
    for _ in range(2):
        httpx.get(f"{here}/products/7")
    page.until(lambda: any("/products/7" in row for row in events(page, "hit")), "the hit")
    page.run("document.querySelector(\"#events tr[data-kind='hit'] button\").click()")
    page.until(lambda: page.text("#explain-answer .verdict") == "A request now would be a hit.", "the explanation")
    told = page.text("#explain-answer")
    for part in (
        "GET /products/{product_id}",
        "everyone gets the same",
        "L1: status 200",
        "L2: status 200",
        "product:7",
        "None is remembered.",
    ):
        assert part in told
    discount(other, 7, 15)
    page.until(lambda: any("product:7" in row for row in events(page, "purge")), "the purge")
    field = page.find("#explain-url")
    field.clear()
    field.send_keys("products/7", Keys.ENTER)
    page.until(
        lambda: page.text("#explain-answer .verdict") == "A request now would be a miss.", "the other explanation"
    )
    assert re.search(r"from \S+/\d+, ", page.text("#explain-answer"))
    field.clear()
    field.send_keys("/no/such/page", Keys.ENTER)
    page.until(lambda: "No route of this app answers it." in page.text("#explain-answer"), "the page that is none")


def test_a_purge_is_made_with_the_keyboard_and_has_to_be_confirmed(fleet: Fleet, page: Browser) -> None:
    """Enter asks, Escape keeps everything, and a second look purges on every replica."""
    here = fleet.urls[0]
    for _ in range(2):
        httpx.get(f"{here}/products/2")
    field = page.find("#purge-value")
    field.send_keys("product:2", Keys.ENTER)
    dialog = page.find("#confirm")
    assert dialog.is_displayed()
    assert "every response with the tag product:2" in dialog.text
    assert page.run("return document.activeElement.value") == "no"
    page.driver.switch_to.active_element.send_keys(Keys.ESCAPE)
    page.until(lambda: not dialog.is_displayed(), "the dialog closed")
    assert httpx.get(f"{here}/products/2").headers["cache-status"].startswith("cacheinval; hit")

    field.send_keys(Keys.ENTER)
    page.driver.switch_to.active_element.send_keys(Keys.TAB)
    page.driver.switch_to.active_element.send_keys(Keys.ENTER)
    said = page.until(lambda: (text := page.text("#purge-answer")).startswith("Done") and text, "the purge")
    assert "All 3 replicas have applied it" in said
    assert "fwd=" in httpx.get(f"{here}/products/2").headers["cache-status"]
    # Said aloud as well; then the page hears of the purge.
    assert page.text("#said").startswith(("Done", "Purged"))


def test_what_is_stored_is_found_and_purged(fleet: Fleet, page: Browser) -> None:
    """A search finds a tag among what is stored, and its button purges it."""
    here = fleet.urls[0]
    httpx.get(f"{here}/products/13")
    page.until(lambda: "product:13" in page.text("#hot-tags"), "the tag among the hottest")
    page.find("#search input").send_keys("product:13", Keys.ENTER)
    page.until(lambda: "contain “product:13”" in page.text("#hot-of"), "the search")
    assert page.texts("#hot-tags tbody td.name") == ["product:13"]
    page.find("#hot-tags tbody button").click()
    page.find("#confirm-yes").click()
    page.until(lambda: page.text("#purge-answer").startswith("Done"), "the purge")
    assert "fwd=" in httpx.get(f"{here}/products/13").headers["cache-status"]


def test_numbers_go_on_around_the_row_that_has_the_focus(fleet: Fleet, page: Browser) -> None:
    """Whoever is in a table with the keyboard stays where they are, and sees the same news as everybody."""
    here = fleet.urls[0]
    row = "#routes-table tr:has(:focus)"
    httpx.get(f"{here}/products/21")
    page.until(lambda: "GET /products/{product_id}" in page.text("#routes-table"), "the route")
    page.run(
        "[...document.querySelectorAll('#routes-table .fold')].find(e => e.textContent === 'GET /products/{product_id}').focus()"
    )
    before = page.text(f"{row} td:nth-child(2)")
    httpx.get(f"{here}/products/22")
    httpx.get(f"{here}/search?q=focus")
    page.until(lambda: page.text(f"{row} td:nth-child(2)") not in ("", before), "the new number")
    page.until(lambda: "GET /search" in page.text("#routes-table"), "the other route")
    assert page.run("return document.activeElement.textContent") == "GET /products/{product_id}"
    page.driver.switch_to.active_element.send_keys(Keys.ENTER)
    page.until(lambda: "Purged by" in page.text(f"{row} + tr"), "what the route declares")


def test_the_page_says_that_redis_is_away_and_that_it_is_back(fleet: Fleet, page: Browser) -> None:
    """Redis is killed: the page says so, and that a purge is queued; it comes back, and the page says for how long it was gone."""
    fleet.kill_redis()
    page.until(lambda: page.text("#banner-title") == "Redis is away.", "the word that Redis is away")
    assert page.text("#link").startswith("Redis is away since")
    assert page.text("#banner-text").startswith("Purges are queued and delivered when it is back.")
    assert page.find("#banner").get_attribute("role") == "alert"
    page.until(lambda: any("Redis is away" in row for row in page.texts("#events tr[data-kind='outage']")), "the event")
    page.find("#purge-value").send_keys("product:5", Keys.ENTER)
    page.find("#confirm-yes").click()
    page.until(lambda: page.text("#purge-answer").startswith("Queued"), "the queued purge")
    page.until(lambda: "queued for" in page.text("#purges-of"), "the queue")

    fleet.restart_redis()
    page.until(lambda: page.text("#banner-title") == "Redis is back.", "the word that Redis is back")
    assert "It was away for" in page.text("#banner-text")
    page.until(lambda: "none queued" in page.text("#purges-of"), "the queue delivered")
    assert page.text("#link") == "In touch with Redis"


def test_the_page_says_that_the_app_is_away_and_an_open_page_does_not_hold_it_up(fleet: Fleet, page: Browser) -> None:
    """A replica that is shut down stops at once although a page is open, and the page says so until it is back."""
    fleet.stop(0)
    page.until(lambda: page.text("#banner-title") == "The app does not answer.", "the word that the app is away")
    assert page.text("#link") == "The app does not answer"
    fleet.start(0)
    page.until(lambda: page.text("#link") == "In touch with Redis", "the page in touch again")


def test_hostile_names_are_text(fleet: Fleet, page: Browser) -> None:
    """Markup in tags, paths and queries is shown as it is written, and runs nothing."""
    hostile = "<img/src=x/onerror=window.hacked=1>"
    script = "/<script>window.hacked=1</script>"
    before = page.run("return document.querySelectorAll('img, script, svg').length")
    httpx.get(f"{fleet.urls[0]}/search?q={quote(hostile)}")
    httpx.get(f"{fleet.urls[0]}/search?q=x&{quote(hostile)}=1")
    asyncio.run(purge(fleet.redis_url, hostile, f'"><svg/onload={hostile}>', path=script))
    page.until(lambda: any(hostile in row for row in events(page, "purge")), "the tag")
    page.until(lambda: any(script in row for row in events(page, "purge")), "the path")
    page.until(lambda: any("/search?q=%3Cimg" in row for row in page.texts("#events tbody tr")), "the query")
    page.find("#search input").send_keys(hostile, Keys.ENTER)
    page.until(lambda: hostile in page.text("#hot-of"), "the search")
    page.find("#purge-value").send_keys(hostile, Keys.ENTER)
    assert hostile in page.text("#confirm-text")
    page.find("#confirm button").click()
    assert page.run("return document.querySelectorAll('img, script, svg').length") == before
    assert page.run("return window.hacked") is None
