"""Random FastAPI apps as plain data, and the apps and requests that are made of it.

Every dependency gives back, as text, all that it was handed, or as much of it as its `gives` lets through;
the handler's body holds all that its tree gave it. What should not have been shared shows there.
"""

# No postponed annotations: signatures are made of objects.

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from inspect import Parameter, Signature
from typing import Annotated, Any, Self, cast

from fastapi import APIRouter, Cookie, Depends, FastAPI, Header, HTTPException, Path, Query, Request, Response, Security
from fastapi.responses import PlainTextResponse
from fastapi.routing import APIRoute
from fastapi.security import (
    APIKeyCookie,
    APIKeyHeader,
    APIKeyQuery,
    HTTPBasic,
    HTTPBearer,
    OAuth2PasswordBearer,
    SecurityScopes,
)
from pydantic import BaseModel, Field
from starlette.datastructures import Headers
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import HTTPConnection

from fastapi_cacheinval import cached


class Filters(BaseModel):
    q1: str | None = None
    deep: str | None = Field(default=None, alias="q3")


class Fields(BaseModel):
    x_a: str | None = None


SCHEMES: dict[str, Callable[[], Any]] = {
    "oauth2": lambda: OAuth2PasswordBearer(tokenUrl="token"),
    "oauth2-lax": lambda: OAuth2PasswordBearer(tokenUrl="token", auto_error=False),
    "key-header": lambda: APIKeyHeader(name="x-key", auto_error=False),
    "key-cookie": lambda: APIKeyCookie(name="who", auto_error=False),
    "key-query": lambda: APIKeyQuery(name="key", auto_error=False),
    "basic": lambda: HTTPBasic(auto_error=False),
    "bearer": lambda: HTTPBearer(auto_error=False),
}
# Those whose value can be a partition.
TEXTUAL = ("oauth2", "oauth2-lax", "key-header", "key-cookie", "key-query")

# What a node may read: its annotation, and its default or none.
READS: dict[str, tuple[Any, Any]] = {
    "header": (Annotated[str | None, Header(alias="x-a")], None),
    "needed-header": (Annotated[str, Header(alias="x-a")], Parameter.empty),
    "header-model": (Annotated[Fields, Header()], Parameter.empty),
    "cookie": (Annotated[str | None, Cookie(alias="who")], None),
    "request": (Request, Parameter.empty),
    "connection": (HTTPConnection, Parameter.empty),
    "lang": (Annotated[str | None, Header(alias="x-lang")], None),
    "query": (Annotated[str | None, Query(alias="q1")], None),
    "queries": (Annotated[list[str], Query(alias="q2")], []),
    "number": (Annotated[int, Query(alias="n")], 0),
    "query-model": (Annotated[Filters, Query()], Parameter.empty),
    "path": (Annotated[str, Path(alias="item")], Parameter.empty),
    "scopes": (SecurityScopes, Parameter.empty),
}
OF_CALLERS = ("header", "needed-header", "header-model", "cookie", "request", "connection", "lang")
OF_ANYBODY = ("query", "queries", "number", "path", "scopes")
STYLES = ("async", "async", "def", "generator", "async-generator", "class", "instance", "partial")


@dataclass(frozen=True)
class Edge:
    """A use of a node: plain, or by `Security` with scopes, reused or solved anew."""

    node: int
    scopes: tuple[str, ...] = ()
    reused: bool = True

    def marker(self, calls: list[Any]) -> Any:
        if self.scopes:
            return Security(calls[self.node], scopes=list(self.scopes), use_cache=self.reused)
        return Depends(calls[self.node], use_cache=self.reused)


@dataclass(frozen=True)
class Node:
    """A dependency, or with `scheme` one of FastAPI's own; children have lower numbers.

    `gives` is "all", one "bit" of it, or "nothing"; `refuses` is whom it answers with a 403: "bob",
    who is "nobody", or all but alice where the scope "admin" is asked for; `writes` is what it sets
    of the response.
    """

    reads: tuple[str, ...] = ()
    children: tuple[Edge, ...] = ()
    scheme: str | None = None
    style: str = "async"
    gives: str = "all"
    refuses: str | None = None
    writes: str | None = None


@dataclass(frozen=True)
class Spec:
    """An app with one route: its nodes, what its lists and its handler use of them, and its policy.

    `shape` says how the route hangs in the app, `policy_at` in which list `cached()` stands; `layers` are
    what stands between the cache and the route, innermost first, each with whether it is the outer app's,
    and `route_class` is what the route itself is.
    """

    nodes: tuple[Node, ...]
    lists: Mapping[str, tuple[Edge, ...]]
    handler: Node
    shape: str
    policy_at: str
    policy_first: bool
    partition: tuple[Edge, ...]
    guards: tuple[Edge, ...]
    shared: bool | None = None
    inert: bool = False
    statuses: frozenset[int] = frozenset({200})
    layers: tuple[tuple[str, bool], ...] = ()
    route_class: str | None = None


LEVELS = ("app", "include", "router", "route")


# -- what stands before a route, or is one --------------------------------------------------------


def _who(headers: Any) -> str:
    found = headers.get("x-a") or headers.get("authorization") or ""
    return "bob" if "bob" in found or found.startswith("Basic") else found[-5:]


class Names:
    """Adds a field for who says who they are."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        who = _who(Headers(scope=scope)) if scope["type"] == "http" else ""

        async def named(message: Any) -> None:
            if who and message["type"] == "http.response.start":
                message["headers"].append((b"x-user", who.encode()))
            await send(message)

        await self.app(scope, receive, named)


async def _signs(request: Request, call_next: Any) -> Response:
    response = await call_next(request)
    body = b"".join([chunk async for chunk in response.body_iterator])
    fields = {name: value for name, value in response.headers.items() if name != "content-length"}
    return Response(body + _who(request.headers).encode(), response.status_code, fields)


async def _refuses(request: Request, call_next: Any) -> Response:
    return PlainTextResponse("key", 401) if _who(request.headers) == "bob" else await call_next(request)


async def _refuses_afterwards(request: Request, call_next: Any) -> Response:
    response: Response = await call_next(request)
    return PlainTextResponse("not you", 403) if _who(request.headers) == "bob" else response


async def _passes(request: Request, call_next: Any) -> Response:
    return cast("Response", await call_next(request))


LAYERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "names": (Names, {}),
    "signs": (BaseHTTPMiddleware, {"dispatch": _signs}),
    "refuses": (BaseHTTPMiddleware, {"dispatch": _refuses}),
    "refuses-afterwards": (BaseHTTPMiddleware, {"dispatch": _refuses_afterwards}),
    "passes": (BaseHTTPMiddleware, {"dispatch": _passes}),
}


class Greeting(APIRoute):
    """Writes who asks into each response."""

    def get_route_handler(self) -> Any:
        handler = super().get_route_handler()

        async def greeting(request: Request) -> Response:
            response = await handler(request)
            response.headers["x-greeted"] = _who(request.headers)
            return response

        return greeting


class Quiet(APIRoute):
    """Handed the request, and does nothing with it."""

    def get_route_handler(self) -> Any:
        handler = super().get_route_handler()

        async def quiet(request: Request) -> Response:
            return await handler(request)

        return quiet


ROUTE_CLASSES: dict[str | None, type[APIRoute]] = {None: APIRoute, "greeting": Greeting, "quiet": Quiet}


def _text(value: Any) -> Any:
    if isinstance(value, HTTPConnection):
        headers = value.headers
        return [headers.get(name) for name in ("authorization", "x-a", "x-key", "x-lang", "cookie")] + [value.url.query]
    if isinstance(value, SecurityScopes):
        return sorted(value.scopes)
    if isinstance(value, BaseModel):
        return value.model_dump()
    return value if isinstance(value, str | int | list) or value is None else str(value)


def _check(node: Node, handed: Mapping[str, Any], text: str) -> None:
    scopes = handed.get("scopes")
    refused = {
        None: False,
        "bob": "bob" in text,
        "nobody": "alice" not in text and "bob" not in text,
        "admin": "alice" not in text and scopes is not None and "admin" in scopes.scopes,
    }[node.refuses]
    if refused:
        raise HTTPException(403, detail=text)


def _work(number: int, node: Node) -> Callable[..., str]:
    def work(it: Any = "", **handed: Any) -> str:
        seen = {name: _text(value) for name, value in sorted(handed.items()) if not isinstance(value, Response)}
        # Where its signature declares the policy, a handler is handed None.
        seen["it"] = it
        text = json.dumps(seen)
        _check(node, handed, text)
        response = handed.get("response")
        if response is not None and node.writes == "header":
            response.headers[f"x-of-{number}"] = text
        elif response is not None and ("bob" in text or "1" in text):
            response.status_code = 203
        if node.gives == "all":
            return text
        return str(sum(text.encode()) % 2) if node.gives == "bit" else ""

    return work


def _signature(node: Node, calls: list[Any]) -> Signature:
    keyword = Parameter.KEYWORD_ONLY
    parameters = [
        Parameter(name.replace("-", "_"), keyword, annotation=READS[name][0], default=READS[name][1])
        for name in node.reads
    ]
    if node.writes is not None:
        parameters.append(Parameter("response", keyword, annotation=Response))
    parameters += [
        Parameter(f"d{index}", keyword, annotation=Annotated[Any, edge.marker(calls)])
        for index, edge in enumerate(node.children)
    ]
    return Signature(parameters)


def _styled(style: str, work: Callable[..., str]) -> Any:
    async def asynchronous(**handed: Any) -> str:
        return work(**handed)

    def plain(**handed: Any) -> str:
        return work(**handed)

    def generator(**handed: Any) -> Iterator[str]:
        yield work(**handed)

    async def async_generator(**handed: Any) -> Any:
        yield work(**handed)

    class Instance:
        def __call__(self, **handed: Any) -> str:
            return work(**handed)

    class Text(str):
        __slots__ = ()

        def __new__(cls, **handed: Any) -> Self:
            return super().__new__(cls, work(**handed))

    made: dict[str, Any] = {
        "async": asynchronous,
        "def": plain,
        "generator": generator,
        "async-generator": async_generator,
        "class": Text,
        "instance": Instance(),
        "partial": partial(asynchronous),
    }
    return made[style]


def _call(number: int, node: Node, calls: list[Any]) -> Any:
    if node.scheme is not None:
        return SCHEMES[node.scheme]()
    call = _styled(node.style, _work(number, node))
    call.__signature__ = _signature(node, calls)
    return call


@dataclass
class Built:
    """The app of a spec: `provider` is what holds its overrides, `calls` its nodes, `prefixes` where its route is."""

    app: FastAPI
    provider: FastAPI
    calls: list[Any]
    prefixes: tuple[str, ...]
    lists: dict[str, list[Any]] = field(default_factory=dict)


def build(spec: Spec, shared: bool | None) -> Built:
    """A new app as the spec says, with this word of its author's on sharing."""
    calls: list[Any] = []
    for number, node in enumerate(spec.nodes):
        calls.append(_call(number, node, calls))
    lists = {level: [edge.marker(calls) for edge in spec.lists.get(level, ())] for level in LEVELS}
    policy = cached(
        ttl=60,
        stale_while_revalidate=1_000,
        early_refresh=0,
        jitter=0,
        statuses=spec.statuses,
        shared=shared,
        partition_by=tuple(edge.marker(calls) for edge in spec.partition),
        guarded_by=tuple(edge.marker(calls) for edge in spec.guards),
    )
    handler = _call(-1, spec.handler, calls)
    if spec.policy_at == "handler":
        parameters = [*handler.__signature__.parameters.values()]
        it = Parameter("it", Parameter.KEYWORD_ONLY, annotation=Any, default=policy)
        handler.__signature__ = Signature([it, *parameters] if spec.policy_first else [*parameters, it])
    else:
        lists[spec.policy_at].insert(0 if spec.policy_first else len(lists[spec.policy_at]), policy)
    if spec.inert and spec.policy_at != "app":
        lists["app"].insert(0, cached(ttl=5))
    return _hang(spec, calls, lists, handler)


def _hang(spec: Spec, calls: list[Any], lists: Mapping[str, list[Any]], handler: Any) -> Built:
    built = _hung(spec, calls, lists, handler)
    for kind, outer in spec.layers:
        layer, options = LAYERS[kind]
        (built.app if outer else built.provider).add_middleware(layer, **options)
    return built


def _hung(spec: Spec, calls: list[Any], lists: Mapping[str, list[Any]], handler: Any) -> Built:
    path = "/item/{item}"
    app = FastAPI(dependencies=lists["app"], openapi_url=None)
    route_class = ROUTE_CLASSES[spec.route_class]
    app.router.route_class = route_class
    if spec.shape == "app":
        app.get(path, dependencies=[*lists["include"], *lists["router"], *lists["route"]])(handler)
        return Built(app, app, calls, ("",))
    router = APIRouter(dependencies=lists["router"], route_class=route_class)
    router.get(path, dependencies=lists["route"])(handler)
    prefixes: tuple[str, ...] = ("/r",)
    if spec.shape == "twice":
        app.include_router(router, prefix="/s")
        prefixes = ("/r", "/s")
    elif spec.shape == "nested":
        outer = APIRouter(prefix="/o")
        outer.include_router(router, prefix="/r", dependencies=lists["include"])
        app.include_router(outer)
        return Built(app, app, calls, ("/o/r",))
    app.include_router(router, prefix="/r", dependencies=lists["include"])
    if spec.shape != "mounted":
        return Built(app, app, calls, prefixes)
    outside = FastAPI(openapi_url=None)
    outside.mount("/m", app)
    return Built(outside, app, calls, ("/m/r",))


# -- what a spec says of itself, by another way than the package's ------------------------------


def asks_who(spec: Spec, number: int) -> bool:
    """Whether a node, or anything below it, reads what tells callers apart."""
    node = spec.nodes[number]
    own = node.scheme is not None or any(name in OF_CALLERS for name in node.reads)
    return own or any(asks_who(spec, edge.node) for edge in node.children)


def has_scopes(spec: Spec) -> bool:
    """Whether any use of a node asks for security scopes."""
    edges = [edge for node in (*spec.nodes, spec.handler) for edge in node.children]
    edges += [edge for listed in spec.lists.values() for edge in listed]
    return any(edge.scopes for edge in edges)


# -- requests -----------------------------------------------------------------------------------

CALLERS: dict[str, dict[str, str]] = {
    "alice": {"authorization": "Bearer alice", "x-a": "alice", "x-key": "alice", "cookie": "who=alice"},
    "bob": {"authorization": "Basic Ym9iOnB3", "x-a": "bob", "x-key": "bob", "cookie": "who=bob"},
    "bobs-token": {"authorization": "Bearer bob"},
    "nobody": {},
}
QUERIES = ("", "q1=1", "q1=2", "q2=1&q2=2", "q2=2", "q3=1", "n=1", "n=x", "utm=1", "q1=1&utm=2", "key=alice", "key=bob")


@dataclass(frozen=True)
class Ask:
    """One request: by whom, for what."""

    caller: str
    path: str
    query: str = ""
    lang: str | None = None
    method: str = "GET"

    @property
    def target(self) -> str:
        return f"{self.path}?{self.query}" if self.query else self.path

    @property
    def headers(self) -> dict[str, str]:
        return CALLERS[self.caller] | ({} if self.lang is None else {"x-lang": self.lang})
