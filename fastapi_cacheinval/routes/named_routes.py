"""Routes by their names: the path and the tags that a route's stored responses have for given parameters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from starlette.requests import Request

from fastapi_cacheinval.core.tags import path_tag, render_value
from fastapi_cacheinval.routes.bindings import rendered_all
from fastapi_cacheinval.routes.path_shapes import IN_PATH
from fastapi_cacheinval.routes.plan import RoutePlan

__all__ = ["NamedRoute"]


def _texts(value: object) -> list[str]:
    """A parameter's value as a URL holds it, several where it is a list."""
    given: Any = value
    values: Iterable[object] = given if isinstance(value, list | tuple | set | frozenset) else (given,)
    return [text for each in values if (text := render_value(each)) is not None]


def _query(parameters: Mapping[str, object]) -> str:
    texts = {name: _texts(value) for name, value in parameters.items()}
    return urlencode(texts, doseq=True, errors="surrogatepass")


@dataclass(frozen=True, slots=True)
class NamedRoute:
    """One GET route by its name, as its author or FastAPI gave it."""

    name: str
    plan: RoutePlan

    def _in_path(self) -> list[str]:
        return IN_PATH.findall(self.plan.path)

    def refusal(self, parameters: Mapping[str, object]) -> str | None:
        """Why the route does not take these parameters; None where it does."""
        path, plan = self._in_path(), self.plan
        for name in path:
            if not _texts(parameters.get(name)):
                return f"The route {self.name!r} ({plan.path}) needs the parameter {name!r}."
        for name in parameters:
            if name not in path and name not in plan.bindings and plan.query is not None and name not in plan.query:
                takes = ", ".join([*path, *sorted(plan.query)]) or "none"
                return f"The route {self.name!r} ({plan.path}) has no parameter {name!r}; it takes: {takes}."
        return None

    def url(self, parameters: Mapping[str, object]) -> str:
        """The path and query, encoded."""
        in_path = self._in_path()
        path = IN_PATH.sub(lambda found: quote(_texts(parameters[found[1]])[0], errors="surrogatepass"), self.plan.path)
        query = _query({name: value for name, value in parameters.items() if name not in in_path})
        return f"{path}?{query}" if query else path

    def tags(self, parameters: Mapping[str, object]) -> tuple[str, ...]:
        """The path's own tag, and what the policy's templates that name a given parameter give for valid values."""
        texts = {name: _texts(parameters[name])[0] for name in self._in_path()}
        path = IN_PATH.sub(lambda found: texts[found[1]], self.plan.path)
        policy, bindings = self.plan.policy, self.plan.bindings
        request = Request(
            {
                "type": "http",
                "path_params": texts,
                "query_string": _query(parameters).encode(),
            }
        )
        found: dict[str, None] = {}
        for template in () if policy is None else policy.templates:
            if parameters.keys() & template.names:
                # Nothing is stored for a value that the route refuses.
                found.update(dict.fromkeys(rendered_all((template,), bindings, request) or ()))
        return (*found, path_tag(path))
