"""The site of the documentation, built strictly and read in a real browser."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin

import pytest

from tests.system.browser import Browser

pytestmark = pytest.mark.timeout(240)  # Sphinx and a browser on a small machine

ROOT = Path(__file__).resolve().parents[2]
SITE = ROOT / "build" / "site"
PICTURES = ROOT / "build" / "pictures"
PHONE, DESK = 390, 1280


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    """The URL of the site, made anew."""
    made = subprocess.run(
        [ROOT / "scripts" / "build-docs", Path(sys.executable).parent], capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stdout + made.stderr
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(SITE))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


class _Page(HTMLParser):
    """What a page links to, and what can be linked to on it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.anchors.add(given.get("id") or "")
        for name in ("href", "src"):
            if given.get(name):
                self.links.append(str(given[name]))


def test_no_link_of_the_site_is_broken(site: str) -> None:
    """Each link within the site leads to a file of it, and each fragment to a place in that file."""
    pages = {path.relative_to(SITE).as_posix(): _Page(path.read_text("utf-8")) for path in SITE.rglob("*.html")}
    broken = []
    for name, page in pages.items():
        for link in page.links:
            target, fragment = urldefrag(urljoin(f"{site}{name}", link))
            if not target.startswith(site):
                # The reader follows links elsewhere; the page itself asks nobody else.
                assert not re.search(r"\.(?:js|mjs|css|woff2?)$", target), (name, link)
                continue
            file = unquote(target.removeprefix(site)).partition("?")[0] or "index.html"
            anchors = pages[file].anchors if file in pages else {unquote(fragment)}
            if not (SITE / file).is_file() or (fragment and unquote(fragment) not in anchors):
                broken.append((name, link))
    assert len(pages) > 30
    assert broken == []


def test_search_finds_the_page(site: str, browser: Browser) -> None:
    """A word that is typed into the search leads to the page that is about it."""
    browser.look(DESK, 900)
    browser.go(f"{site}search.html?q=PartitionBy")
    browser.until(lambda: browser.texts("#search-results li a"), "results")
    assert any("users" in found.lower() for found in browser.texts("#search-results li a"))
    assert browser.complaints() == []


def test_pictures_are_drawn(site: str, browser: Browser) -> None:
    """The picture of the layers is drawn by the page itself, from text."""
    browser.look(DESK, 900)
    browser.go(f"{site}architecture.html")
    browser.until(lambda: browser.run("return document.querySelectorAll('.mermaid svg').length"), "a drawing")
    assert browser.complaints() == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [DESK, PHONE])
def test_it_can_be_read_at_each_width_and_in_each_theme(site: str, browser: Browser, width: int, dark: bool) -> None:
    """Nothing but code and tables is wider than the window, and the page follows the reader's theme."""
    browser.look(width, 900, dark=dark)
    for page in ("index.html", "users.html", "http.html", "reference.html"):
        browser.go(f"{site}{page}")
        assert browser.run("return document.documentElement.scrollWidth <= window.innerWidth"), page
    background = browser.run("return getComputedStyle(document.body).backgroundColor")
    brightness = sum(map(int, re.findall(r"\d+", background)[:3]))
    assert (brightness < 3 * 128) is dark, background
    browser.go(site)
    PICTURES.mkdir(parents=True, exist_ok=True)
    browser.picture(PICTURES / f"site-{width}-{'dark' if dark else 'light'}.png", 900)
    assert browser.complaints() == []
