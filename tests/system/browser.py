"""Debian's Chromium, driven by its own chromedriver through Selenium."""

from __future__ import annotations

import base64
import contextlib
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

__all__ = ["Browser"]

# Root may not use Chromium's sandbox; the rest keeps the browser from calling home.
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--lang=en",
    "--force-prefers-reduced-motion",
]

# Real seconds: a browser on a small machine that does other things besides.
PATIENCE = 60.0

# Clicks, then waits for the line that the page adds to its list for this request; no polling.
CLICK_AND_WAIT = """
const [selector, request, done] = arguments;
new MutationObserver((changes, observer) => {
    for (const row of changes.flatMap(change => [...change.addedNodes])) {
        if (row.cells?.[0].textContent === request) {
            observer.disconnect();
            done([...row.cells].map(cell => cell.textContent));
            return;
        }
    }
}).observe(document.querySelector("tbody"), {childList: true});
document.querySelector(selector).click();
"""


class Browser:
    """One browser; `open` starts it and ends it. `driver` is Selenium's own."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    @classmethod
    @contextlib.contextmanager
    def open(cls, directory: Path) -> Iterator[Browser]:
        """Start one with an empty profile in a folder; nothing is downloaded for it."""
        chromium, chromedriver = shutil.which("chromium"), shutil.which("chromedriver")
        assert chromium, "no chromium on PATH: run these tests with `make test-system`"
        assert chromedriver, "no chromedriver on PATH: run these tests with `make test-system`"
        options = webdriver.ChromeOptions()
        options.binary_location = chromium
        for flag in (*FLAGS, f"--user-data-dir={directory / 'profile'}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        service = Service(chromedriver, log_output=str(directory / "chromedriver.log"))
        driver = webdriver.Chrome(options=options, service=service)
        try:
            driver.set_page_load_timeout(PATIENCE)
            driver.set_script_timeout(PATIENCE)
            yield cls(driver)
        finally:
            driver.quit()

    # -- pages ------------------------------------------------------------------------------------

    def go(self, url: str) -> None:
        """Load a page and wait for it."""
        self.driver.get(url)

    def run(self, script: str, *arguments: Any) -> Any:
        """What a JavaScript function with this body returns."""
        return self.driver.execute_script(script, *arguments)

    def find(self, selector: str) -> WebElement:
        """The one element of a CSS selector."""
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        """What an element shows, taken in one step; nothing where it is hidden, or is not there."""
        found: str = self.run(
            "const e = document.querySelector(arguments[0]); return e?.checkVisibility() ? e.innerText : '';", selector
        )
        return found

    def texts(self, selector: str) -> list[str]:
        """What all elements of a selector hold, hidden ones too, taken in one step: the page may change meanwhile."""
        found: list[str] = self.run(
            "return [...document.querySelectorAll(arguments[0])].map(e => e.textContent)", selector
        )
        return found

    def until(self, condition: Callable[[], object], what: str) -> Any:
        """Look again and again until something is so; what it was."""
        deadline = time.monotonic() + PATIENCE
        while not (found := condition()):
            assert time.monotonic() < deadline, f"{what} did not come true; the page says:\n{self.text('body')}"
            time.sleep(0.02)
        return found

    def click(self, selector: str, request: str) -> list[str]:
        """Click, and return the cells of the line that the page adds for this request, which the click causes."""
        cells: list[str] = self.driver.execute_async_script(CLICK_AND_WAIT, selector, request)
        return cells

    def complaints(self) -> list[str]:
        """What the browser's console has to say since the last call: errors of scripts and failed requests."""
        log: Any = self.driver.get_log("browser")  # type: ignore[no-untyped-call]
        return [entry["message"] for entry in log if entry["level"] in {"SEVERE", "WARNING"}]

    # -- how it looks -----------------------------------------------------------------------------

    def look(self, width: int, height: int, *, dark: bool = False) -> None:
        """Be a screen of this size, that prefers light or dark."""
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})

    def picture(self, path: Path, height: float, selector: str = "body") -> None:
        """Write what stands in an element, of the page where none is named, down to a height, as a PNG."""
        box = "const box = document.querySelector(arguments[0]).getBoundingClientRect();"
        left, top, width, tall = self.run(
            f"{box} return [box.x + scrollX, box.y + scrollY, box.width, box.height]", selector
        )
        clip = {"x": left, "y": top, "width": width, "height": min(height, tall), "scale": 1}
        taken = self.driver.execute_cdp_cmd("Page.captureScreenshot", {"clip": clip, "captureBeyondViewport": True})
        path.write_bytes(base64.b64decode(taken["data"]))
