"""Dependencies that give no value: what they do, they do by a refusal, or by what they leave behind."""

from __future__ import annotations

import dis
import inspect
from collections.abc import Sequence
from functools import partial
from types import CodeType, FunctionType, NoneType
from typing import Any

from fastapi_cacheinval.routes.covers import Uncovered
from fastapi_cacheinval.routes.dependency_tree import Node
from fastapi_cacheinval.routes.names import Names
from fastapi_cacheinval.routes.own_code import codes_of, unbound
from fastapi_cacheinval.routes.partition_types import kind_of

__all__ = ["told_of_valueless"]

# How far a check may be from the dependency that calls it.
_MOST_CALLS = 3
_GENERATES = inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR
_STORES = frozenset({"STORE_ATTR", "STORE_GLOBAL", "STORE_SUBSCR"})
_SETTERS = frozenset({"add", "append", "set", "setattr", "setdefault", "update"})


def told_of_valueless(found: Sequence[Uncovered], names: Names, root: Node) -> list[str]:
    """What to do about each dependency that gives nothing, where no line is sure to keep callers apart.

    One that refuses nobody, as far as its code shows, may leave who is calling where the handler finds it. And None in
    a partition keeps nobody apart.
    """
    told: list[str] = []
    for each in found:
        function, name = _function_of(each.node.call), names.spelled(each.node)
        nothing = function is not None and _gives_nothing(function.__code__)
        if not nothing and kind_of(each.node, root) not in (None, NoneType):
            continue
        taken = each.taken and each.unkeyed
        if not taken and (function is None or (_raises(function) and not _leaves(function.__code__))):
            continue
        listed = f"declare it in dependencies=[{names.listed(each.node)}], and " if taken else ""
        told.append(
            f"{name} gives no value: if it leaves who is calling in a context or in request.state, give that as a "
            f"value, and name it in partition_by. If it only refuses callers, {listed}name it in guarded_by."
        )
    return told


def _function_of(call: Any) -> FunctionType | None:
    while isinstance(call, partial):
        call = call.func  # pyright: ignore[reportUnknownMemberType]
    if inspect.isclass(call):
        return None
    function: Any = call if inspect.isroutine(call) else type(call).__call__
    bare: Any = inspect.unwrap(unbound(function))
    return bare if type(bare) is FunctionType else None


def _gives_nothing(code: CodeType) -> bool:
    """Whether a function hands on nothing but None, of what it returns or yields."""
    generates = code.co_flags & _GENERATES
    gives = ("YIELD_VALUE",) if generates else ("RETURN_VALUE", "RETURN_CONST")
    before: dis.Instruction | None = None
    for each in dis.get_instructions(code):
        if each.opname in ("ASYNC_GEN_WRAP", "CALL_INTRINSIC_1"):
            # It stands between a value and the `yield` of an asynchronous generator.
            continue
        if each.opname in gives:
            value = each if each.opname == "RETURN_CONST" else before
            # An asynchronous generator waits in the same way as a plain one hands on what another yields.
            awaits = value is not None and value.opname == "SEND" and code.co_flags & inspect.CO_ASYNC_GENERATOR
            nothing = value is not None and "CONST" in value.opname and value.argval is None
            if not (awaits or nothing):
                return False
        before = each
    return True


def _leaves(code: CodeType) -> bool:
    """Whether a function may set something that outlives its call."""
    return any(
        not _SETTERS.isdisjoint(inner.co_names) or any(each.opname in _STORES for each in dis.get_instructions(inner))
        for inner in codes_of(code)
    )


def _raises(function: FunctionType, depth: int = _MOST_CALLS) -> bool:
    """Whether a function raises, or one of the functions that it names and that those name.

    What a generator opens around the handler is no check, so what that raises does not count.
    """
    if function.__code__.co_flags & _GENERATES:
        depth = 0
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    held = {name: _held(cell) for name, cell in cells}
    for code in codes_of(function.__code__):
        if any(each.opname == "RAISE_VARARGS" for each in dis.get_instructions(code)):
            return True
        for name in (*code.co_names, *code.co_freevars) if depth else ():
            named = held.get(name, function.__globals__.get(name))
            if type(named) is FunctionType and _raises(named, depth - 1):
                return True
    return False


def _held(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        # It is to be made yet.
        return None
