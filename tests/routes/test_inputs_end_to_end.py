"""What a route reads tells stored responses apart, and nothing else does: asked of a running cache."""

# No postponed annotations: the handlers name classes and callables of their own test.

import json
import warnings
from enum import IntEnum, IntFlag, StrEnum
from typing import Annotated, Any
from unittest.mock import patch
from uuid import UUID

import pytest
from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Path, Query, Request
from fastapi.routing import APIRoute
from starlette.routing import Host, Match, Mount, Router

from fastapi_cacheinval import CacheMiddleware, HTTPCache, cached
from fastapi_cacheinval.testing import assert_hit, assert_miss
from tests.helpers.http import Shop, ask

pytestmark = pytest.mark.anyio


async def test_queries_that_differ_never_collide() -> None:
    """Separators, encodings and repetitions: what the handler can tell apart is stored apart, and hits itself."""
    shop = Shop()

    @shop.app.get("/it", dependencies=[cached(ttl=60)])
    async def it(a: Annotated[list[str], Query()] = [], b: str = "", id: Annotated[list[str], Query()] = []) -> Any:  # noqa: A002, B006
        return [a, b, id]

    queries = [
        "",
        "a=1&b=2",
        "a=1:b=2",
        "a=1%26b=2",
        "a=1%26b%3D2",
        "a=1;b=2",
        "a=1&a=2",
        "a=2&a=1",
        "a=12",
        "a=1%3A1&b=",
        "id=1&id=2",
        "id=2&id=1",
        "id=2",
        "id=1%2C2",
        "b=2&b=3",
        "b=3",
        "a=",
        "a=%00",
        "a=%FF",
        "a=%C3%BF",
        "a=+",
        "a=%2B",
    ]
    first = {query: await shop.ask(f"/it?{query}") for query in queries}
    for query in queries:
        again = await shop.ask(f"/it?{query}")
        assert again.body == first[query].body
        assert_hit(again)
    # As the handler sees it, these are pairs of one; all others differ.
    assert first["b=2&b=3"].body == first["b=3"].body
    assert first["a=1%26b=2"].body == first["a=1%26b%3D2"].body
    bodies = [first[query].body for query in queries]
    assert len(set(bodies)) == len(queries) - 2


async def test_what_no_parameter_declares_does_not_split() -> None:
    """Tracking parameters, in any place and number, meet what is stored without them."""
    shop = Shop()

    @shop.app.get("/it", dependencies=[cached(ttl=60)])
    async def it(a: str = "") -> str:
        shop.count()
        return a

    for query in ("a=1", "utm_source=x&a=1", "a=1&fbclid=%00", "A=2&a=1", "a=1&&=&b"):
        assert (await shop.ask(f"/it?{query}")).body == b'"1"'
    assert shop.calls == 1


async def test_a_slash_in_the_path_is_one_however_it_is_written() -> None:
    """`%2F` and `/` reach the handler alike, and so does what is stored."""
    shop = Shop()

    @shop.app.get("/files/{name:path}", dependencies=[cached(ttl=60)])
    async def it(name: str) -> str:
        shop.count()
        return name

    assert_miss(await shop.ask("/files/a/b"))
    again = await shop.ask("/files/a/b", raw_path=b"/files/a%2Fb")
    assert_hit(again)
    assert again.body == b'"a/b"'
    for other in ("/files/a//b", "/files/a/b/", "/files/a%2Fb", "/files/A/b"):
        answer = await shop.ask(other)
        assert_miss(answer)
        assert answer.body.decode() == f'"{other.removeprefix("/files/")}"'


async def test_hosts_and_no_host_are_kept_apart() -> None:
    """Two names, a port, an empty field and no field: what one of them got, none of the others gets."""
    shop = Shop()

    @shop.app.get("/it", dependencies=[cached(ttl=60, shared=True)])
    async def it(request: Request) -> str:
        return str(request.headers.get("host"))

    for _ in range(2):
        for host in ("a.example", "b.example", "a.example:8000", None):
            assert (await shop.ask("/it", host=host)).body.decode() == f'"{host}"'


async def test_a_second_host_field_reaches_nobody_elses_response() -> None:
    """Which of two the app believes is its business: neither is answered with the other's, nor stored for it."""
    shop = Shop()

    @shop.app.get("/it", dependencies=[cached(ttl=60, shared=True)])
    async def it(request: Request) -> str:
        return ",".join(request.headers.getlist("host"))

    two = [("host", "b.example")]
    assert (await shop.ask("/it", host="a.example", headers=two)).body == b'"a.example,b.example"'
    for host in ("a.example", "b.example"):
        assert (await shop.ask("/it", host=host)).body.decode() == f'"{host}"'


@pytest.mark.parametrize("root", ["", "/api", "/api/", "/", "/api/v1"])
@pytest.mark.parametrize("own", [True, False])
async def test_root_paths_never_make_one_of_two_paths(root: str, own: bool) -> None:
    """Wherever the root path comes from and whatever it ends in, every path that the handler can tell apart is."""
    with warnings.catch_warnings():
        # Newer releases would rather have the server's.
        warnings.simplefilter("ignore")
        app = FastAPI(root_path=root) if own else FastAPI()
    app.add_middleware(CacheMiddleware, cache=HTTPCache())

    @app.get("/{rest:path}", dependencies=[cached(ttl=60)])
    async def it(rest: str) -> str:
        return rest

    paths = ["/x", "/api/x", "/api//x", "/api/v1/x", "/v1/x", "//x", "/api/", "/apix", "/api/v1"]
    plain: dict[str, bytes] = {}
    bare = FastAPI()
    bare.get("/{rest:path}")(it)
    for path in paths:
        plain[path] = (await ask(bare, path, root_path=root)).body
    for _ in range(2):
        for path in paths:
            assert (await ask(app, path, root_path="" if own else root)).body == plain[path], path


async def test_routes_that_match_in_a_way_of_their_own_never_answer_for_each_other() -> None:
    """Two versions of one path, told apart by a header in the route class, are two resources."""
    shop = Shop()

    class First(APIRoute):
        version = b"1"

        def matches(self, scope: Any) -> Any:
            match, child = super().matches(scope)
            asked = dict(scope["headers"]).get(b"x-version", b"1")
            return (Match.NONE, {}) if match is Match.FULL and asked != self.version else (match, child)

    class Second(First):
        version = b"2"

    def answering(version: str) -> Any:
        return lambda: version

    for kind in (First, Second):
        router = APIRouter(route_class=kind)
        router.get("/it", dependencies=[cached(ttl=60)])(answering(kind.version.decode()))
        shop.app.include_router(router)
    for _ in range(2):
        for version in ("1", "2"):
            answer = await shop.ask("/it", headers={"x-version": version})
            assert answer.body.decode() == f'"{version}"'


async def test_a_path_parameter_that_the_path_does_not_hold_is_in_the_key() -> None:
    """A route class, or a layer around the app, may take a tenant from a header: no tenant gets another's page."""
    shop = Shop()

    class OfTenant(APIRoute):
        def matches(self, scope: Any) -> Any:
            match, child = super().matches(scope)
            if match is not Match.NONE:
                tenant = dict(scope["headers"]).get(b"x-tenant", b"").decode()
                child["path_params"] = {**child["path_params"], "tenant": tenant}
            return match, child

    router = APIRouter(route_class=OfTenant)

    @router.get("/it", dependencies=[cached(ttl=60)])
    async def it(tenant: Annotated[str, Path()]) -> str:
        return tenant

    shop.app.include_router(router)
    for _ in range(2):
        for tenant in ("alice", "bob", ""):
            assert (await shop.ask("/it", headers={"x-tenant": tenant})).body.decode() == f'"{tenant}"'


@pytest.mark.parametrize("kind", ["mount", "host"])
async def test_what_a_mount_outside_the_middleware_takes_from_the_request_is_in_the_key(kind: str) -> None:
    """The tenant stands in the part of the path, or in the host, that another router has already taken off."""
    app = FastAPI()

    @app.get("/it", dependencies=[cached(ttl=60)])
    async def it(tenant: Annotated[str, Path()]) -> str:
        return tenant

    inner = CacheMiddleware(app, cache=HTTPCache())
    route = Mount("/{tenant}", app=inner) if kind == "mount" else Host("{tenant}.example", app=inner)
    outer = Router(routes=[route])
    for _ in range(2):
        for tenant in ("alice", "bob"):
            path = f"/{tenant}/it" if kind == "mount" else "/it"
            answer = await ask(outer, path, host=f"{tenant}.example" if kind == "host" else "all.example")
            assert answer.body.decode() == f'"{tenant}"'


async def test_hosts_that_lead_to_different_routes_do_so_warm() -> None:
    """One path below two hosts, and beside them: each host in each case gets what it gets without the cache."""
    plain, shop = FastAPI(), Shop()
    for app in (plain, shop.app):
        sub = FastAPI()

        async def of_host(tenant: Annotated[str, Path()]) -> str:
            return f"sub {tenant}"

        async def of_all() -> str:
            return "all"

        sub.get("/it", dependencies=[cached(ttl=60)] if app is shop.app else [])(of_host)
        app.router.routes.append(Host("{tenant}.example", sub))
        app.get("/it", dependencies=[cached(ttl=60)] if app is shop.app else [])(of_all)
    for _ in range(2):
        for host in ("a.example", "A.example", "b.example", "elsewhere", "a.EXAMPLE"):
            assert (await shop.ask("/it", host=host)).body == (await ask(plain, "/it", host=host)).body


async def test_authorization_does_not_split_what_is_proved_shared() -> None:
    """Two callers with different tokens share the page that reads neither, by the route lookup and not the front's."""
    shop = Shop()

    @shop.app.get("/it", dependencies=[cached(ttl=60)])
    async def it() -> int:
        return shop.count()

    for token in ("alice", "bob", "alice"):
        assert (await shop.ask("/it", headers={"authorization": f"Bearer {token}"})).body == b"1"
    assert shop.cache._core.counters.hits == 0
    assert_hit(await shop.ask("/it"))
    assert shop.calls == 1


class Level(IntEnum):
    ONE = 1


class Name(StrEnum):
    ONE = "1"


class Open(StrEnum):
    ALL = "all"

    @classmethod
    def _missing_(cls, value: object) -> "Open":
        # As apps do that take any value of another system.
        made = str.__new__(cls, value)
        made._name_, made._value_ = "UNKNOWN", str(value)
        return made


class Rights(IntFlag):
    READ = 1


def principal_of(name: str) -> Any:
    kind, _, value = name.partition(":")
    kinds: dict[str, Any] = {
        "int": int,
        "str": str,
        "bytes": str.encode,
        "bool": lambda text: text == "1",
        "uuid": UUID,
        "level": lambda text: Level(int(text)),
        "name": Name,
        "open": Open,
        "rights": lambda text: Rights(int(text)),
        "none": lambda text: None,
        "tuple": lambda text: tuple(text.split(",")),
        "nested": lambda text: (tuple(text.split(",")),),
    }
    return kinds[kind](value)


PRINCIPALS = [
    "int:1", "int:-1", "str:1", "bytes:1", "bool:1", "bool:0", "level:1", "name:1", "open:all", "open:alice",
    "open:bob", "rights:1", "rights:8", "rights:16", "rights:9", "none:", "str:", "str:None", "bytes:", "tuple:1",
    "tuple:1,1", "tuple:11", "nested:1", "nested:1,1", "tuple:", "uuid:00000000-0000-0000-0000-000000000001",
    "uuid:00000000-0000-0000-0000-000000000002", "str:00000000-0000-0000-0000-000000000001",
]  # fmt: skip


def principal(x_as: Annotated[str, Header()]) -> Any:
    return principal_of(x_as)


async def test_principals_of_any_type_are_kept_apart() -> None:
    """Also members of an Enum that are made on the way, with no name or all with the same, and nested tuples."""
    shop = Shop()

    @shop.app.get("/mine", dependencies=[cached(ttl=60, partition_by=principal)])
    async def mine(who: Annotated[Any, Depends(principal)]) -> str:
        return repr(who)

    for _ in range(2):
        for name in PRINCIPALS:
            answer = await shop.ask("/mine", headers={"x-as": name})
            assert json.loads(answer.body) == repr(principal_of(name))
    assert_hit(answer)


async def test_two_partitions_are_told_apart_by_their_order() -> None:
    """Alice for Bob is not Bob for Alice, and two short names are not one long one."""
    shop = Shop()

    def user(x_user: Annotated[str, Header()]) -> str:
        return x_user

    def tenant(x_tenant: Annotated[str, Header()]) -> str:
        return x_tenant

    @shop.app.get("/mine", dependencies=[cached(ttl=60, partition_by=(user, tenant))])
    async def mine(one: Annotated[str, Depends(user)], other: Annotated[str, Depends(tenant)]) -> str:
        return f"{one}/{other}"

    for _ in range(2):
        for one, other in (("alice", "bob"), ("bob", "alice"), ("a", "b"), ("ab", ""), ("", "ab")):
            answer = await shop.ask("/mine", headers={"x-user": one, "x-tenant": other})
            assert answer.body.decode() == f'"{one}/{other}"'


async def test_the_secret_decides_where_a_partitions_responses_lie() -> None:
    """Two secrets give two keys, one secret the same in two caches, and no secret another at every start."""

    async def key_with(**options: Any) -> bytes:
        shop = Shop(**options)

        def user(x_user: Annotated[str, Header()]) -> str:
            return x_user

        @shop.app.get("/mine", dependencies=[cached(ttl=60, partition_by=user)])
        async def mine() -> str:
            return ""

        with patch.object(shop.cache._core.engine, "keep", wraps=shop.cache._core.engine.keep) as kept:
            assert_miss(await shop.ask("/mine", headers={"x-user": "alice"}))
        key: bytes = kept.call_args.args[0]
        return key

    assert await key_with(secret="one" * 6) == await key_with(secret=b"one" * 6)
    assert await key_with(secret="one" * 6) != await key_with(secret="two" * 6)
    assert await key_with() != await key_with()


async def test_a_value_of_another_lifetime_is_not_the_partitions() -> None:
    """FastAPI solves one `yield` dependency twice where its exits differ: the key may hold another value."""
    shop = Shop()

    async def ticket(x_user: Annotated[str, Header()] = "") -> Any:
        yield str(shop.count())

    @shop.app.get("/mine", dependencies=[cached(ttl=60, partition_by=Depends(ticket, scope="function"))])
    async def mine(mine: Annotated[str, Depends(ticket)]) -> str:
        return mine

    refused = await shop.ask("/mine")
    assert refused.status_code == 500
    assert b"ticket: Header() 'x_user'" in refused.body


async def test_a_refused_parameter_is_refused_warm() -> None:
    """A 422 stays one beside stored answers of the same path, and an `HTTPException` by what was asked too."""
    shop = Shop()

    @shop.app.get("/it", dependencies=[cached(ttl=60, statuses={200, 404, 422})])
    async def it(number: int) -> int:
        if number > 9:
            raise HTTPException(404, detail=str(number))
        return number

    for _ in range(2):
        for query, status in (("number=1", 200), ("number=x", 422), ("", 422), ("number=10", 404), ("number=11", 404)):
            answer = await shop.ask(f"/it?{query}")
            assert answer.status_code == status
            assert query.removeprefix("number=").encode() in answer.body
