"""What a cache asks of an app that it serves, by the names of its routes and without a client."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from fastapi_cacheinval.core.audit import Audit
from fastapi_cacheinval.core.explanation import Explanation
from fastapi_cacheinval.core.warming import Page, WarmResult

__all__ = ["Parameters", "ServedApp"]

Parameters = Mapping[str, object]


class ServedApp(Protocol):
    """An app behind a middleware of the cache, once its routes are known."""

    @property
    def root_path(self) -> str:
        """The root path that the app itself declares; empty where it declares none."""
        ...

    @property
    def title(self) -> str:
        """What it calls itself; the name of its class where it has no title."""
        ...

    def audit(self) -> Audit:
        """What its routes say of caching."""
        ...

    async def explain(
        self,
        asked: Page | Mapping[str, Any],
        method: str,
        headers: tuple[tuple[bytes, bytes], ...],
        partition: tuple[object, ...] | None,
    ) -> Explanation:
        """What a request would get that is not made: for a page, or of the scope of one that was made."""
        ...

    def route_names(self) -> tuple[str, ...]:
        """The names of its routes that answer GET."""
        ...

    def tags_of(self, name: str, parameters: Parameters) -> tuple[str, ...]:
        """What stored responses of the routes of a name carry, paths included; raises `UnknownRoute`."""
        ...

    def url_of(self, name: str, parameters: Parameters) -> str:
        """The path and query of a route, encoded; raises `UnknownRoute`."""
        ...

    def serves(self, scope: Mapping[str, Any]) -> bool:
        """Whether a request with this scope came to it."""
        ...

    def answers(self, page: Page) -> bool:
        """Whether a route of its answers this page."""
        ...

    async def fetch(self, page: Page, headers: tuple[tuple[bytes, bytes], ...], *, forced: bool) -> WarmResult:
        """Ask for a page as nobody; `forced` forwards it whatever is stored. Never raises for what the app does."""
        ...
