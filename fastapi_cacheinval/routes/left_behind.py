"""What dependencies leave behind beside their values, and those that give no value: no line rests on it in silence.

No look at code finds all that a call leaves behind. So the author is asked, for each line.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import NoneType

from fastapi_cacheinval.routes.covers import Uncovered
from fastapi_cacheinval.routes.dependency_tree import Node
from fastapi_cacheinval.routes.fastapi_private import security_scheme
from fastapi_cacheinval.routes.names import Names
from fastapi_cacheinval.routes.own_code import is_frameworks_class
from fastapi_cacheinval.routes.partition_types import value_type

__all__ = ["told_of_left_behind", "told_of_valueless"]


def told_of_valueless(found: Sequence[Uncovered], names: Names, root: Node) -> list[str]:
    """What to do about each dependency whose value is taken, and is None for all: no line keeps callers apart."""
    return [
        f"{names.spelled(each.node)} gives no value that tells callers apart: if it leaves who is calling in a context "
        "variable or in request.state, give that as a value, and name it in partition_by. If it only refuses callers, "
        f"declare it in dependencies=[{names.listed(each.node)}], and name it in guarded_by."
        for each in found
        if each.taken and each.unkeyed and value_type(each.node, root) in (None, NoneType)
    ]


def told_of_left_behind(covers: Iterable[Node], names: Names) -> str:
    """What to do where the answer depends on more than the covers of a line give; empty where they leave nothing."""
    leaving = {names.spelled(node): node for node in covers if not _leaves_nothing(node)}
    if not leaving:
        return ""
    needs = [child for node in leaving.values() for child in node.children if names.spelled(child) not in leaving]
    below = f"one of {'its' if len(leaving) == 1 else 'their'} dependencies"
    *others, last = [*leaving, *([] if all(map(_leaves_nothing, needs)) else [below])]
    those = f"{', '.join(others)} or {last}" if others else last
    return (
        f"If the answer depends on something that {those} leaves behind (in a context variable, request.state or a "
        "shared object), give that as a value and name it in partition_by."
    )


def _leaves_nothing(node: Node) -> bool:
    """Whether a dependency is a security scheme of the framework itself, or the cache's own."""
    scheme = security_scheme(node.call)
    return node.ours or (scheme is node.call and is_frameworks_class(type(scheme)))
