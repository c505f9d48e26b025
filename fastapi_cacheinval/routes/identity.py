"""What a route is in every process that serves the same app: names, places and plain values, no number or address.

Two routes made by one factory have the same names. The plain values that their functions hold on to tell them apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from types import CodeType
from typing import Any, NamedTuple

from fastapi_cacheinval.core.keys import as_bytes, encode
from fastapi_cacheinval.core.policy import CachePolicy
from fastapi_cacheinval.dependencies import GUARD, PARTITION, Cached
from fastapi_cacheinval.routes.bindings import Binding
from fastapi_cacheinval.routes.conversions import conversions
from fastapi_cacheinval.routes.dependency_tree import Node
from fastapi_cacheinval.routes.held_values import COVER, KEY, portrait_of
from fastapi_cacheinval.routes.parameters import model_of, request_names

__all__ = ["CoverNames", "cover_names", "plain_values", "policy_terms", "route_identity"]


def plain_values(call: object) -> tuple[bytes, ...]:
    """The values a callable holds on to that are the same in every process: text, bytes, UUIDs, enums, classes.

    They stand in closures, defaults, the arguments of a `partial` and attributes of objects and classes. Numbers do not
    count, because they often number processes; nor does what lists and mappings hold, which changes.
    """
    return portrait_of(call).parts[1:]


class CoverNames(NamedTuple):
    """What a partition is of, and what guards; `complete` is false where other covers may have the same names."""

    names: tuple[bytes, ...]
    complete: bool


def cover_names(root: Node, cached: Cached | None) -> CoverNames:
    """What the covers are: each dependency in order, with all that it needs, and the function that makes a key of it.

    A release with another dependency, the same with other scopes, or one that needs another, shares nothing with this
    one: it partitions by something else, or lets in others. Nor does one that changes the code of any of them, or what
    any of them reads of the request.
    """
    if cached is None:
        return CoverNames((), complete=True)
    policy = cached.policy
    named = [
        (f"{PARTITION}{index}", *each)
        for index, each in enumerate(zip(policy.partition, policy.partition_keys, strict=True))
    ]
    named += [(f"{GUARD}{index}", cover, None) for index, cover in enumerate(policy.guards)]
    covers: dict[str | None, list[Node]] = {}
    for place in root.walk():
        if place.call is cached:
            for node in place.children:
                covers.setdefault(node.declares.name, []).append(node)
    names: list[bytes] = []
    complete = True
    for name, cover, key in named:
        nodes = covers.get(name, ())
        made = [portrait_of(getattr(cover, "dependency", cover), COVER)]
        made += [] if key is None else [portrait_of(key, KEY)]
        below = [(depth, node, portrait_of(node.call, COVER)) for cover in nodes for depth, node in _below(cover)]
        parts = [as_bytes(name), *(encode(portrait.parts) for portrait in made)]
        parts += [
            encode((b"%d" % depth, *_scopes(node), *_reads(node), *portrait.parts)) for depth, node, portrait in below
        ]
        parts.append(encode(sorted({encode(_reads(cover)) for cover in nodes})))
        parts.append(encode(sorted({scope for cover in nodes for scope in _scopes(cover)})))
        names.append(sha256(encode(parts)).digest())
        complete = complete and all(portrait.complete for portrait in (*made, *(each for _, _, each in below)))
    return CoverNames(tuple(names), complete)


def _below(node: Node, depth: int = 1) -> Iterator[tuple[int, Node]]:
    """All that a dependency needs, each with how far below it."""
    for child in node.children:
        if not child.ours:
            yield depth, child
            yield from _below(child, depth + 1)


def _scopes(node: Node) -> list[bytes]:
    return [as_bytes(scope) for scope in sorted(node.identity[1])]


def _reads(node: Node) -> Iterator[bytes]:
    """Each parameter of a node, with the names and the place that it has in the request."""
    of = node.declares
    places = {
        "path": of.path_params,
        "query": of.query_params,
        "header": of.header_params,
        "cookie": of.cookie_params,
        "body": of.body_params,
    }
    for place, fields in places.items():
        for field in fields:
            info, model = field.field_info, model_of(field)
            parts: dict[str, Any] = {} if model is None else {**model.model_fields}
            for name, each in ((field.name, info), *parts.items()):
                converts = repr(getattr(each, "convert_underscores", None))
                yield encode(map(as_bytes, (place, name, converts, *sorted(request_names(name, each)))))
    # FastAPI hands on by name what the code knows by its place.
    code = getattr(node.call, "__code__", None)
    if isinstance(code, CodeType):
        yield encode(map(as_bytes, code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]))
    yield encode(as_bytes(child.declares.name or "") for child in node.children)


def policy_terms(
    policy: CachePolicy, headers: Iterable[bytes], bindings: Mapping[str, Binding], *, outside: bool
) -> bytes:
    """What a policy says of what is stored under it.

    `headers` are the fields that select a variant, `bindings` give the values in its tags, and `outside` is whether
    layers around the route have a part in what is stored. A release that says something else shares nothing with this
    one: what was stored lacks a tag that is purged now, was made for another value of a field that selects now, or
    lives longer than it may now. The covers have names of their own, and `jitter`, `early_refresh` and the timeouts
    promise nothing of what is stored.
    """
    predicate, downstream = policy.should_store, policy.downstream_seconds
    times = (policy.stale_seconds, policy.error_seconds, *(() if downstream is None else (downstream,)))
    words = (policy.shared, policy.request_is_shared, policy.ttl_from_response, outside)
    parts = (
        (f"{status} {float(life)}" for status, life in sorted(policy.lifetimes.items())),
        map(str, map(float, times)),
        map(str, map(bool, words)),
        () if policy.cache_control is None else (policy.cache_control,),
        sorted({template.text for template in policy.templates}),
    )
    named = () if predicate is None else portrait_of(predicate, KEY).parts
    converted = conversions((name for template in policy.templates for name in template.names), bindings)
    others = (encode(headers), encode(named), encode(converted))
    return sha256(encode((*(encode(map(as_bytes, each)) for each in parts), *others))).digest()


def route_identity(
    template: str,
    hosts: tuple[str, ...],
    methods: frozenset[str],
    root: Node,
    writers: tuple[bytes, ...] = (),
    layers: tuple[str, ...] = (),
) -> tuple[bytes, ...]:
    """A route's template, the patterns of its hosts, its methods and its handler, with all that tells it from a twin.

    `writers` and `layers` have a part in what is stored of it. Of its dependencies only the plain values count:
    renaming one does not make another route.
    """
    held = (value for node in root.walk() if node is not root and not node.ours for value in plain_values(node.call))
    return (
        as_bytes(template),
        encode(map(as_bytes, hosts)),
        encode(map(as_bytes, sorted(methods))),
        encode(portrait_of(root.call).parts),
        encode(held),
        *writers,
        *map(as_bytes, layers),
    )
