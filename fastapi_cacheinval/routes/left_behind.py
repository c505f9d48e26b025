"""What dependencies leave behind, and those that give no value: no line of a refusal rests on either in silence.

A line is proved for a guard whose code, and what that calls as far as it can be looked at, stores nothing.
"""

from __future__ import annotations

import dis
import inspect
import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from types import FunctionType, ModuleType, NoneType
from typing import Any, cast

from fastapi_cacheinval.routes.covers import Uncovered
from fastapi_cacheinval.routes.dependency_tree import Node
from fastapi_cacheinval.routes.fastapi_private import security_scheme
from fastapi_cacheinval.routes.held_objects import attribute_of, whose
from fastapi_cacheinval.routes.names import Names
from fastapi_cacheinval.routes.own_code import codes_of, is_frameworks_class, unbound
from fastapi_cacheinval.routes.partition_types import kind_of

__all__ = ["told_of_valueless", "unproved_guards"]

# How far what leaves or refuses may be from the dependency that calls it, and how many functions are worth a look.
_MOST_CALLS = 3
_MOST_FUNCTIONS = 64
_GENERATES = inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR
_STORES = frozenset({"STORE_ATTR", "STORE_GLOBAL", "STORE_SUBSCR"})
_SETTERS = re.compile("_*(add|append|bind|push|put|set(attr|default|item)?|store|update)(_.*)?")
_MAKERS = ("__init__", "__new__", "__post_init__", "model_post_init")
_CONSTANTS = frozenset({"LOAD_CONST", "LOAD_SMALL_INT", "RETURN_CONST"})


def told_of_valueless(found: Sequence[Uncovered], names: Names, root: Node) -> list[str]:
    """What to do about each dependency whose value is taken, and is the same for all: no line keeps callers apart."""
    told: list[str] = []
    for each in found:
        functions = [*_made_by(each.node.call)]
        same = not inspect.isclass(each.node.call) and all(map(_gives_the_same, functions)) and bool(functions)
        if each.taken and each.unkeyed and (same or kind_of(each.node, root) in (None, NoneType)):
            name = names.spelled(each.node)
            told.append(
                f"{name} gives no value that tells callers apart: if it leaves who is calling in a context or in "
                "request.state, give that as a value, and name it in partition_by. If it only refuses callers, "
                f"declare it in dependencies=[{names.listed(each.node)}], and name it in guarded_by."
            )
    return told


def unproved_guards(found: Sequence[Uncovered], names: Names) -> list[str]:
    """The guards to be, by name, that may leave who is calling where the handler finds it: nobody takes a value."""
    unproved = [each.node for each in found if not (each.taken and each.unkeyed) and not _only_refuses(each.node)]
    return [*dict.fromkeys(map(names.spelled, unproved))]


def _only_refuses(node: Node) -> bool:
    """Whether a dependency, with all that it needs, leaves nothing; where nothing refuses, a call may do anything."""
    refuses, calls = False, False
    for each in node.walk():
        scheme = security_scheme(each.call)
        if each.ours or (scheme is each.call and is_frameworks_class(type(scheme))):
            refuses = refuses or scheme is not None
            continue
        functions = [*_reached(each.call)]
        if not functions or any(_leaves(function) for function, _ in functions):
            return False
        # What a generator opens around the handler is no check.
        opens = functions[0][0].__code__.co_flags & _GENERATES
        refuses = refuses or any(_has(function, "RAISE_VARARGS") for function, far in functions if not (opens and far))
        calls = calls or any(_has(function, "CALL") for function, _ in functions)
    return refuses or not calls


# -- what runs ------------------------------------------------------------------------------------


def _made_by(call: Any) -> Iterator[FunctionType]:
    """The functions that FastAPI calls, of a class those that make its objects."""
    while isinstance(call, partial):
        call = call.func  # pyright: ignore[reportUnknownMemberType]
    if inspect.isclass(call):
        made: list[Any] = [type(call).__call__, *(getattr(call, name, None) for name in _MAKERS)]
    else:
        made = [unbound(call if inspect.isroutine(call) else type(call).__call__)]
    yield from (each for each in made if type(each) is FunctionType)


def _reached(call: Any) -> Iterator[tuple[FunctionType, int]]:
    """The functions of a call, and those that they name and that these name, each with how far away it is."""
    bound = attribute_of(call, "__self__") or call
    owner = cast("type[object]", bound if isinstance(bound, type) else type(bound))
    waiting = deque((function, 0) for function in _made_by(call))
    seen: dict[int, FunctionType] = {}
    while waiting and len(seen) < _MOST_FUNCTIONS:
        function, far = waiting.popleft()
        if id(function) in seen:
            continue
        seen[id(function)] = function
        yield function, far
        if far < _MOST_CALLS:
            waiting += ((each, far + 1) for each in _called(function, owner))


def _called(function: FunctionType, owner: type) -> Iterator[FunctionType]:
    """The functions that one may call: by their names, as attributes of modules, or as methods of what it names."""
    codes = [*codes_of(function.__code__)]
    names = {name: None for code in codes for name in (*code.co_names, *code.co_freevars)}
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    held = {name: attribute_of(cell, "cell_contents") for name, cell in cells}
    found: list[Any] = [held.get(name, function.__globals__.get(name)) for name in names]
    found += [owner, *(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    modules: dict[int, ModuleType] = {}
    for each in found:
        thing: Any = unbound(each.func if isinstance(each, partial) else each)
        if type(thing) is FunctionType:
            yield from (thing,) if whose(thing) != "python's" else ()
        elif isinstance(thing, ModuleType):
            if id(thing) not in modules:
                modules[id(thing)] = thing
                found += [vars(thing)[name] for name in names if name in vars(thing)]
        elif thing is not None:
            yield from _methods(thing, names)


def _methods(thing: Any, names: Iterable[str]) -> Iterator[FunctionType]:
    """The methods of an object that have one of these names; of a class those that make its objects as well."""
    kind: type = thing if isinstance(thing, type) else type(thing)
    wanted = (*names, *(_MAKERS if kind is thing else ()))
    for base in kind.__mro__:
        if whose(base) != "python's":
            for name in wanted:
                member: Any = vars(base).get(name)
                function = attribute_of(member, "__func__") or attribute_of(member, "fget") or member
                if isinstance(function, FunctionType):
                    yield function


# -- what it does ---------------------------------------------------------------------------------


def _leaves(function: FunctionType) -> bool:
    """Whether a function may set something that outlives its call; what it sets of a new object is that one's."""
    own = function.__code__.co_varnames[:1] if function.__name__ in _MAKERS else ()
    for code in codes_of(function.__code__):
        before: dis.Instruction | None = None
        for each in dis.get_instructions(code):
            sets = each.argval in code.co_names and _SETTERS.fullmatch(str(each.argval))
            if (sets or each.opname in _STORES) and not (each.opname == "STORE_ATTR" and _loads(before, own)):
                return True
            before = each
    return False


def _loads(each: dis.Instruction | None, names: Sequence[str]) -> bool:
    """Whether an instruction loads one of these variables last: later versions of Python load two at once."""
    if each is None or "LOAD_FAST" not in each.opname:
        return False
    value: Any = each.argval
    last: object = cast("tuple[object, ...]", value)[-1] if isinstance(value, tuple) else value
    return last in names


def _has(function: FunctionType, opcode: str) -> bool:
    return any(
        each.opname.startswith(opcode) for code in codes_of(function.__code__) for each in dis.get_instructions(code)
    )


def _gives_the_same(function: FunctionType) -> bool:
    """Whether a function hands on one constant, of all that it returns or yields."""
    bare: Any = inspect.unwrap(function)
    if type(bare) is not FunctionType:
        return False
    code = bare.__code__
    generates = code.co_flags & _GENERATES
    gives = ("YIELD_VALUE",) if generates else ("RETURN_VALUE", "RETURN_CONST")
    given: set[object] = set()
    before: dis.Instruction | None = None
    for each in dis.get_instructions(code):
        # What comes by a jump may be anything.
        comes = each.is_jump_target and each.opname != "RETURN_CONST"
        if each.opname in ("ASYNC_GEN_WRAP", "CALL_INTRINSIC_1"):
            # It stands between a value and the `yield` of an asynchronous generator.
            before = None if comes else before
            continue
        if each.opname in gives:
            value = each if each.opname == "RETURN_CONST" else None if comes else before
            # An asynchronous generator waits in the same way as a plain one hands on what another yields.
            awaits = before is not None and before.opname == "SEND" and code.co_flags & inspect.CO_ASYNC_GENERATOR
            if not awaits:
                given.add(repr(value.argval) if value is not None and value.opname in _CONSTANTS else each)
        before = each
    return len(given) <= 1 and not any(isinstance(each, dis.Instruction) for each in given)
