"""How the inspector looks in a real browser, and what a screen reader is told of it."""

from __future__ import annotations

import itertools
from pathlib import Path

import httpx
import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.system.browser import Browser
from tests.system.conftest import Fleet, discount

pytestmark = pytest.mark.timeout(240)  # a browser and three replicas on a small machine

IMAGES = Path(__file__).resolve().parents[2] / "docs" / "images"

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
