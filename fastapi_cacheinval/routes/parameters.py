"""What one node of the tree reads of a request: query names, header names, and what tells callers apart."""

from __future__ import annotations

import re
import types
from collections.abc import Collection, Iterable, Iterator
from typing import Annotated, Any, Union, get_args, get_origin

from fastapi.security import APIKeyQuery
from pydantic import AliasChoices, AliasPath, BaseModel

from fastapi_cacheinval.routes.dependency_tree import Node
from fastapi_cacheinval.routes.fastapi_private import Field, security_scheme
from fastapi_cacheinval.routes.own_code import is_frameworks_class, never_uses

__all__ = [
    "CREDENTIALS",
    "caller_reads",
    "handler_headers",
    "looks_like_a_credential",
    "model_of",
    "path_names",
    "query_looks_like_a_credential",
    "query_names",
    "raw_request",
    "request_names",
    "sees_request",
    "varying_headers",
]

CREDENTIALS = frozenset({"authorization", "cookie", "proxy-authorization", "x-api-key"})

# Parts of the names by which proxies, gateways and apps hand on who somebody is.
_LIKE_CREDENTIALS = re.compile(
    "token|auth|key|session|user|jwt|cookie|passw|secret|credential|signature|assertion|oidc|cf-access|"
    "client-cert|ssl-client|principal|identity|email|login|bearer|macaroon|impersonat|certificate"
)
# These say so only as words of their own: as parts they stand in ordinary ones, such as "aside" and "shopping".
_CREDENTIAL_WORDS = frozenset({"cert", "dpop", "hmac", "otp", "pin", "saml", "sid", "sig", "sso", "ticket", "uid"})
# What software is asking, and whether a click did.
_OF_SOFTWARE = frozenset({"user-agent", "sec-fetch-user"})
_ORDINARY_WORDS = re.compile("monkey|donkey|turkey|hockey|whiskey|keyboard|keyword|keynote|keypad")

# In a query most of those names are filters (`user_id`, `author`, `sort_key`), so only these words count.
_QUERY_WORDS = _CREDENTIAL_WORDS - {"pin", "uid"} | frozenset(
    {
        "accesskey", "apikey", "assertion", "auth", "authorization", "bearer", "credential", "credentials", "jwt",
        "macaroon", "oauth", "passwd", "password", "secret", "session", "sessionid", "signature", "token",
    }
)  # fmt: skip
_KEYS_OF = frozenset({"access", "api", "app", "client", "license", "private", "secret", "service", "subscription"})
# A token of these says where a list goes on.
_PLACES = frozenset({"continuation", "cursor", "next", "page", "prev", "previous", "resume", "sync"})


def looks_like_a_credential(name: str) -> bool:
    """Whether a header field's lower-case name suggests that it says who the caller is."""
    dashed = _ORDINARY_WORDS.sub("", name.replace("_", "-"))
    if dashed in _OF_SOFTWARE:
        return False
    return _LIKE_CREDENTIALS.search(dashed) is not None or not _CREDENTIAL_WORDS.isdisjoint(dashed.split("-"))


def query_looks_like_a_credential(name: str) -> bool:
    """Whether a query parameter's name suggests that who takes it checks a caller, as `token` and `apiKey` do."""
    words = re.sub("([a-z0-9])([A-Z])", r"\1-\2", name).lower().replace("_", "-").split("-")
    if words == ["key"] or ("key" in words and not _KEYS_OF.isdisjoint(words)):
        return True
    found = {*_QUERY_WORDS.intersection(words)}
    found |= {word for word in words if word.endswith(("token", "apikey"))}
    return bool(found) and not (found == {"token"} and not _PLACES.isdisjoint(words))


def model_of(field: Field) -> type[BaseModel] | None:
    """The pydantic model that gathers several parameters into one argument, if the field is one."""
    annotation = field.field_info.annotation
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in (Union, types.UnionType):
        members = [member for member in get_args(annotation) if member is not type(None)]
        annotation = members[0] if len(members) == 1 else None
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _takes_only_its_fields(field: Field, model: type[BaseModel]) -> bool:
    """Whether the model sees nothing but its declared fields: it is handed all the rest of the request's too."""
    declared = model.__pydantic_decorators__
    validators: list[Any] = [*declared.model_validators.values(), *declared.root_validators.values()]
    return (
        model.model_config.get("extra", "ignore") in (None, "ignore")
        and all(validator.info.mode == "after" for validator in validators)
        and model.__init__ is BaseModel.__init__
        and model.__new__ is BaseModel.__new__
        and getattr(model.__get_pydantic_core_schema__, "__func__", None)
        is getattr(BaseModel.__get_pydantic_core_schema__, "__func__", None)
        # A validator beside the annotation runs on the whole mapping.
        and not field.field_info.metadata
    )


def request_names(name: str, info: Any) -> set[str]:
    """Every name under which a parameter may come: more than one version of FastAPI reads is no harm."""
    names = {info.alias or name}
    alias = info.validation_alias
    choices = alias.choices if isinstance(alias, AliasChoices) else [alias]
    for choice in choices:
        if isinstance(choice, AliasPath):
            names.add(str(choice.path[0]))
        elif isinstance(choice, str) and choice:
            names.add(choice)
    return names


def _query_of(field: Field) -> set[str] | None:
    names = request_names(field.name, field.field_info)
    model = model_of(field)
    if model is None:
        return names
    if not _takes_only_its_fields(field, model):
        return None
    for name, info in model.model_fields.items():
        names |= {name, *request_names(name, info)}
    return names


def raw_request(node: Node) -> str | None:
    """The parameter by which a node is handed the raw request, if any."""
    declares = node.declares
    return declares.request_param_name or declares.http_connection_param_name or declares.websocket_param_name


def _query_read_raw(node: Node) -> set[str] | None:
    """What a node reads of the query by way of the request itself; None: perhaps all of it."""
    if node.ours or raw_request(node) is None:
        return set()
    scheme: object = node.call
    # FastAPI's own schemes read one header, one cookie or one query parameter, and say which.
    if security_scheme(scheme) is scheme and is_frameworks_class(type(scheme)):
        return {scheme.model.name} if isinstance(scheme, APIKeyQuery) else set()
    return None


def sees_request(root: Node) -> bool:
    """Whether anything in the tree is handed the raw request, which has the path as it was sent and the whole query."""
    return any(_query_read_raw(node) is None for node in root.walk())


def query_names(root: Node) -> frozenset[str] | None:
    """The query parameters that anything in the tree may read; None: the whole query string."""
    names: set[str] = set()
    for node in root.walk():
        read = [_query_read_raw(node), *(_query_of(field) for field in node.declares.query_params)]
        for found in read:
            if found is None:
                return None
            names |= found
    return frozenset(names)


def path_names(root: Node) -> frozenset[str]:
    """The names in the request of all `Path()` parameters in the tree."""
    return frozenset(field.alias for node in root.walk() for field in node.declares.path_params)


def _headers_of(field: Field) -> set[str] | None:
    info = field.field_info
    model = model_of(field)
    if model is None:
        return {name.lower() for name in request_names(field.name, info)}
    if not _takes_only_its_fields(field, model):
        return None
    names: set[str] = set()
    by_name = any(model.model_config.get(key) for key in ("populate_by_name", "validate_by_name"))
    for name, inner in model.model_fields.items():
        converts = getattr(inner, "convert_underscores", getattr(info, "convert_underscores", True))
        read = request_names(name, inner)
        if by_name or model.model_config.get("validate_by_alias") is False:
            read.add(name)
        if converts and name in read:
            if len(read) == 1:
                read.clear()
            read.add(name.replace("_", "-"))
        names |= {each.lower() for each in read}
    return names


def handler_headers(root: Node) -> frozenset[str] | None:
    """The lower-case names of the handler's own `Header()` parameters; None: perhaps all of them."""
    names: set[str] = set()
    for field in root.declares.header_params:
        found = _headers_of(field)
        if found is None:
            return None
        names |= found
    return frozenset(names)


def _negotiates(field: Field) -> bool:
    """Whether a `Header()` parameter reads nothing but `Accept*` fields, which say what is wanted and not who asks."""
    names = _headers_of(field)
    return bool(names) and all(
        (name == "accept" or name.startswith("accept-")) and not looks_like_a_credential(name) for name in names or ()
    )


def varying_headers(root: Node) -> frozenset[str]:
    """The names of the header fields that select a variant: the handler's own, and `Accept*` wherever they are read."""
    names = {*(handler_headers(root) or ())} - CREDENTIALS
    for node in root.walk():
        for field in node.declares.header_params:
            names |= (_headers_of(field) or set()) if _negotiates(field) else set()
    return frozenset(names)


def _listed(kind: str, fields: Iterable[Field]) -> Iterator[str]:
    for field in fields:
        yield f"{kind} {field.name!r}"


def _handler_credentials(root: Node, varied: Collection[str]) -> Iterator[str]:
    for field in root.declares.header_params:
        names = _headers_of(field)
        if names is None:
            yield f"Header() model {field.name!r} that may read every header"
            continue
        for name in sorted(names.difference(varied)):
            if name in CREDENTIALS:
                yield f"Header() {field.name!r} ({name})"
            elif looks_like_a_credential(name):
                yield f"Header() {field.name!r} ({name} looks like a credential)"


def _query_credentials(node: Node) -> Iterator[str]:
    for field in node.declares.query_params:
        for name in sorted(filter(query_looks_like_a_credential, _query_of(field) or ())):
            yield f"Query() {field.name!r} ({name} looks like a credential)"


def caller_reads(
    node: Node, *, handler: bool, varied: Collection[str] = (), request_is_shared: bool = False
) -> tuple[str, ...]:
    """What a node reads that may tell one caller from another, each as `where: what`.

    With `request_is_shared` the raw request tells no callers apart.

    A handler's own `Header()` is part of the variant. It counts only where its name is that of a credential, or looks
    like one and is not `varied`, because then the handler may check it. A dependency's counts always, because that is
    how many apps check a token. A query parameter is in the key, but a dependency that takes a token there may refuse
    it the next time, so one whose name looks like a credential counts in a dependency.
    """
    if node.ours:
        return ()
    declares = node.declares
    what: list[str] = []
    scheme = None if handler else security_scheme(node.call)
    raw = raw_request(node)
    if scheme is not None:
        what.append(f"security scheme {type(scheme).__name__}")
    elif raw is not None and not request_is_shared:
        unused = ", which it never uses" if never_uses(node.call, raw) else ""
        what.append(f"the raw request as {raw!r}{unused}")
    what += _listed("Cookie()", declares.cookie_params)
    if handler:
        what += _handler_credentials(node, varied)
    else:
        what += _listed("Header()", (field for field in declares.header_params if not _negotiates(field)))
    what += [] if handler else _query_credentials(node)
    where = "the handler" if handler else "dependency"
    return tuple(f"{where} {node.label}: {each}" for each in what)
