"""The inspector in a real browser, on three replicas of the example app over a Valkey that goes away."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from example_app.main import NAMESPACE
from example_app.seed import USERS
from fastapi_cacheinval import HTTPCache
from tests.system.browser import Browser
from tests.system.conftest import Fleet

pytestmark = pytest.mark.timeout(240)  # a browser and three replicas on a small machine

IMAGES = Path(__file__).resolve().parents[2] / "docs" / "images"
ADMIN = ("admin", USERS["admin"][0])


@pytest.fixture
def page(fleet: Fleet, browser: Browser) -> Iterator[Browser]:
    """The inspector of the first replica, open in the browser, signed in, and in touch."""
    name, password = ADMIN
    browser.look(1280, 900)
    browser.go(f"{fleet.urls[0].replace('://', f'://{name}:{password}@')}/_cache/")
    browser.until(lambda: browser.text("#link") == "In touch with Redis", "the page in touch")
    yield browser
    complaints = browser.complaints()
    # A request that was under way when a replica was stopped is the test's own doing.
    assert [each for each in complaints if "ERR_CONNECTION_REFUSED" not in each and "ERR_INCOMPLETE" not in each] == []


def events(page: Browser, kind: str) -> list[str]:
    """What the rows of one kind say, the newest first."""
    return page.texts(f"#events tr[data-kind='{kind}']")


def discount(url: str, car: int, percent: int) -> None:
    """Change a price as the administrator."""
    token = httpx.post(f"{url}/token", data={"username": ADMIN[0], "password": ADMIN[1]}).json()["access_token"]
    answer = httpx.post(
        f"{url}/products/{car}/discount",
        json={"percent": percent},
        headers={"Authorization": f"Bearer {token}"},
        timeout=30,
    )
    assert answer.is_success, answer.text


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


def test_the_page_says_that_redis_is_away_and_that_it_is_back(fleet: Fleet, page: Browser) -> None:
    """Redis is killed: the page says so, and that a purge is queued; it comes back, and the page says for how long it was gone."""
    fleet.kill_redis()
    page.until(lambda: page.text("#banner-title") == "Redis is away.", "the word that Redis is away")
    assert page.text("#link").startswith("Redis is away since")
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


ROLES = frozenset(
    [
        "button",
        "checkbox",
        "combobox",
        "form",
        "image",
        "img",
        "link",
        "navigation",
        "progressbar",
        "radio",
        "region",
        "search",
        "searchbox",
        "table",
        "textbox",
    ]
)


def test_everything_has_a_name_and_a_place(page: Browser) -> None:
    """Each control has a name for those who do not see it, sections are landmarks, and the first Tab leads past the menu."""
    # As a screen reader is told of it, in one step: the page changes all the time.
    tree = page.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    told = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in tree if not node["ignored"]]
    named = [(role, name) for role, name in told if role in ROLES]
    assert {role for role, _ in named} >= {"button", "checkbox", "radio", "navigation", "progressbar", "region"}
    assert [role for role, name in named if not name] == []
    for landmark in ("header", "nav", "main"):
        assert len(page.driver.find_elements(By.CSS_SELECTOR, landmark)) == 1
    levels = page.run("return [...document.querySelectorAll('h1, h2, h3')].map(e => Number(e.tagName[1]))")
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    page.find("body").send_keys(Keys.TAB)
    assert page.driver.switch_to.active_element.text == "Skip to the numbers"
    outline = "return getComputedStyle(document.activeElement).outlineStyle"
    assert page.run(outline) != "none"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_can_be_read(page: Browser, dark: bool) -> None:
    """In both colour schemes each text has the contrast that WCAG 2.2 asks of it (AA, 4.5 to 1)."""
    page.look(1280, 900, dark=dark)
    poor = page.run(CONTRAST)
    assert poor == []


def test_it_fits_a_phone(fleet: Fleet, page: Browser) -> None:
    """Nothing is wider than a narrow screen: tables scroll in themselves."""
    httpx.get(f"{fleet.urls[0]}/products/6")
    page.until(lambda: page.texts("#events tbody tr"), "an event")
    page.look(360, 740)
    width, room = page.run("return [document.documentElement.scrollWidth, innerWidth]")
    assert width <= room


# The texts whose colour is too close to that of what they stand on.
CONTRAST = """
const channel = value => { value /= 255; return value <= .04045 ? value / 12.92 : ((value + .055) / 1.055) ** 2.4; };
const light = ([r, g, b]) => .2126 * channel(r) + .7152 * channel(g) + .0722 * channel(b);
const parts = colour => colour.match(/[\\d.]+/g).map(Number);
const behind = element => {
    for (; element; element = element.parentElement) {
        const colour = parts(getComputedStyle(element).backgroundColor);
        if (colour.length === 3 || colour[3] > .99) return colour;
    }
    return [255, 255, 255];
};
return [...document.querySelectorAll("body *")].filter(element =>
    [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim()) && element.checkVisibility()
).flatMap(element => {
    const [one, other] = [light(parts(getComputedStyle(element).color)), light(behind(element))];
    const ratio = (Math.max(one, other) + .05) / (Math.min(one, other) + .05);
    return ratio < 4.5 ? [`${element.tagName} ${element.textContent.trim()} ${ratio.toFixed(2)}`] : [];
});
"""


def test_pictures_for_the_documentation(fleet: Fleet, page: Browser) -> None:
    """The page after some traffic, in light, in dark while Redis is away, and on a phone: `docs/images` has what one sees."""
    with httpx.Client() as client:
        for number in range(40):
            for path in (
                "/",
                "/products",
                "/brands",
                f"/products/{number % 9 + 40}",
                "/products/43",
                f"/search?q={number % 5}",
            ):
                client.get(f"{fleet.urls[0]}{path}")
            for url in fleet.urls[1:]:
                client.get(f"{url}/products/{number % 9 + 40}")
            if number in (20, 39):
                discount(fleet.urls[number % 3], 43 + number % 2, 5 + number)
    page.until(lambda: len(page.texts("#routes-table tbody tr")) >= 5, "the routes")
    page.until(lambda: len(page.texts("#replicas-table tbody tr")) == 3, "the replicas")
    IMAGES.mkdir(exist_ok=True)
    page.picture(IMAGES / "inspector-light.png", 1560)
    page.find("#explain-url").send_keys("/products/43", Keys.ENTER)
    page.until(lambda: "Last purge" in page.text("#explain-answer"), "the explanation")
    page.picture(IMAGES / "inspector-explain.png", 900, "#explain")
    page.run("scrollTo(0, 0)")
    page.look(390, 844)
    page.picture(IMAGES / "inspector-phone.png", 1600)
    page.look(1280, 900, dark=True)
    fleet.kill_redis()
    page.until(lambda: page.text("#banner-title") == "Redis is away.", "the word that Redis is away")
    discount(fleet.urls[0], 43, 30)
    page.until(lambda: "queued for" in page.text("#purges-of"), "the queue")
    page.run("scrollTo(0, 0)")
    page.picture(IMAGES / "inspector-dark.png", 900)
    for name in ("light", "dark", "phone", "explain"):
        assert (IMAGES / f"inspector-{name}.png").read_bytes().startswith(b"\x89PNG")
    fleet.restart_redis()
    page.until(lambda: page.text("#link") == "In touch with Redis", "the page in touch again")
