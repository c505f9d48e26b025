"""What one node of the tree reads of a request: query names, header names, and what tells callers apart."""

from __future__ import annotations

import types
from collections.abc import Collection, Iterable, Iterator
from typing import Annotated, Any, Union, get_args, get_origin

from fastapi.security import APIKeyQuery
from pydantic import AliasChoices, AliasPath, BaseModel

from fastapi_cacheinval.core.credential_names import is_credential, is_headers_credential
from fastapi_cacheinval.routes.dependency_tree import Node
from fastapi_cacheinval.routes.evidence import Cause, Evidence
from fastapi_cacheinval.routes.fastapi_private import Field, security_scheme
from fastapi_cacheinval.routes.filled_parameters import filled_by_decorators
from fastapi_cacheinval.routes.own_code import is_frameworks_class, never_uses, only_reads

__all__ = [
    "CREDENTIALS",
    "caller_reads",
    "handler_headers",
    "may_read_all",
    "model_of",
    "path_names",
    "query_names",
    "raw_request",
    "reads_for_all",
    "request_names",
    "sees_request",
    "tells_callers_apart",
    "varying_headers",
]

CREDENTIALS = frozenset({"authorization", "cookie", "proxy-authorization", "x-api-key"})
# These say nothing of who is calling, beyond what the key holds.
_FOR_ALL = frozenset({"app", "base_url", "method", "path_params", "query_params", "url", "url_for"})


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


def may_read_all(field: Field) -> bool:
    """Whether a field is a model that is handed more of the request than the fields that it declares."""
    model = model_of(field)
    return model is not None and not _takes_only_its_fields(field, model)


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
    if node.ours:
        return set()
    if raw_request(node) is None:
        return None if filled_by_decorators(node) else set()
    scheme: object = node.call
    # FastAPI's own schemes read one header, one cookie or one query parameter, and say which.
    if security_scheme(scheme) is scheme and is_frameworks_class(type(scheme)):
        return {scheme.model.name} if isinstance(scheme, APIKeyQuery) else set()
    return None


def sees_request(root: Node) -> bool:
    """Whether anything in the tree is handed the raw request, which has the path as it was sent and the whole query.

    What a decorator fills may be made of it.
    """
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
        (name == "accept" or name.startswith("accept-")) and not is_headers_credential(name) for name in names or ()
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


def _handler_credentials(root: Node, varied: Collection[str]) -> Iterator[Evidence]:
    where, label = "the handler", root.label
    for field in root.declares.header_params:
        names = _headers_of(field)
        if names is None:
            what = f"Header() model {field.name!r} that may read every header"
            yield Evidence(where, what, Cause.ALL_HEADERS, label)
            continue
        for name in sorted(names.difference(varied)):
            if name in CREDENTIALS or is_headers_credential(name):
                looks = "" if name in CREDENTIALS else " looks like a credential"
                what = f"Header() {field.name!r} ({name}{looks})"
                yield Evidence(where, what, Cause.HEADER, label, field.name, name)


def _credentials(kind: str, node: Node, fields: Iterable[Field]) -> Iterator[str]:
    """What of a node's query or path may let in; security scopes say of a node that it checks what it takes."""
    scoped = bool(node.declares.own_oauth_scopes or node.declares.security_scopes_param_name)
    for field in fields:
        names = {field.name, *(_query_of(field) or ())}
        for name in sorted(filter(is_credential, names)):
            yield f"{kind} {field.name!r} ({name} looks like a credential)"
        if scoped and not any(map(is_credential, names)):
            yield f"{kind} {field.name!r}, and checks security scopes"


def reads_for_all(node: Node) -> bool:
    """Whether a node's code reads nothing of its raw request but what says nothing of who is calling."""
    raw = raw_request(node)
    return (raw is None or only_reads(node.call, raw, _FOR_ALL)) and not filled_by_decorators(node)


def caller_reads(
    node: Node, *, handler: bool, varied: Collection[str] = (), request_is_shared: bool = False
) -> tuple[Evidence, ...]:
    """What a node reads that may tell one caller from another.

    With `request_is_shared` the raw request, or what a decorator may make of it, tells no callers apart.

    A handler's own `Header()` is part of the variant. It counts only where its name is that of a credential, or looks
    like one and is not `varied`, because then the handler may check it. A dependency's counts always, because that is
    how many apps check a token. What stands in the query or the path is in the key, but a dependency that takes a token
    there may refuse it the next time, so a name that looks like a credential counts in a dependency.
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
    if not request_is_shared:
        what += [f"{name!r}, which decorators fill, and FastAPI does not" for name in filled_by_decorators(node)]
    what += _listed("Cookie()", declares.cookie_params)
    if not handler:
        what += _listed("Header()", (field for field in declares.header_params if not _negotiates(field)))
        what += _credentials("Query()", node, declares.query_params)
        what += _credentials("Path()", node, declares.path_params)
    where = "the handler" if handler else "dependency"
    found = [Evidence(where, each, name=node.label) for each in what]
    return (*found, *_handler_credentials(node, varied)) if handler else tuple(found)


def tells_callers_apart(node: Node, *, request_is_shared: bool = False) -> bool:
    """Whether a dependency, or anything below it, reads what may tell one caller from another."""
    reads = (caller_reads(each, handler=False, request_is_shared=request_is_shared) for each in node.walk())
    return any(reads)
