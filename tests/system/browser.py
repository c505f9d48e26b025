"""A browser driven over WebDriver (W3C), with no more of it than the tests need."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import httpx

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
    """One session of a driver; `open` makes it and ends it."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    @classmethod
    @contextlib.contextmanager
    def open(cls, driver: str, flags: list[str]) -> Iterator[Browser]:
        """Start a browser with these command-line flags through the driver at this URL."""
        wanted = {"goog:chromeOptions": {"args": flags}, "goog:loggingPrefs": {"browser": "ALL"}}
        answer = httpx.post(f"{driver}/session", json={"capabilities": {"alwaysMatch": wanted}}, timeout=60)
        assert answer.is_success, answer.text
        session = answer.json()["value"]["sessionId"]
        with httpx.Client(base_url=f"{driver}/session/{session}", timeout=60) as client:
            try:
                yield cls(client)
            finally:
                # Not through the client, whose base ends in a slash: the driver would not know that, and leave the
                # browser running.
                httpx.delete(f"{driver}/session/{session}", timeout=60).raise_for_status()

    def _command(self, path: str, **body: Any) -> Any:
        answer = self._client.post(path, json=body)
        assert answer.is_success, answer.text
        return answer.json()["value"]

    def go(self, url: str) -> None:
        """Load a page and wait for it."""
        self._command("/url", url=url)

    def run(self, script: str, *arguments: Any) -> Any:
        """What a JavaScript function with this body returns."""
        return self._command("/execute/sync", script=script, args=list(arguments))

    def click(self, selector: str, request: str) -> list[str]:
        """Click, and return the cells of the line that the page adds for this request, which the click causes."""
        return self._command("/execute/async", script=CLICK_AND_WAIT, args=[selector, request])

    def complaints(self) -> list[str]:
        """What the browser's console has to say since the last call: errors of scripts and failed requests."""
        return [entry["message"] for entry in self._command("/se/log", type="browser")]
