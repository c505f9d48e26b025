"""The line that an author has to write, for a route whose covers leave something uncovered."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from inspect import isclass, unwrap
from typing import NamedTuple

from fastapi_cacheinval.dependencies import Cached
from fastapi_cacheinval.routes.cover_lines import covers_line, fields_of, key_for, keyed
from fastapi_cacheinval.routes.covers import Covers, Uncovered
from fastapi_cacheinval.routes.dependency_tree import Node
from fastapi_cacheinval.routes.evidence import Evidence
from fastapi_cacheinval.routes.fastapi_private import security_scheme
from fastapi_cacheinval.routes.left_behind import told_of_left_behind, told_of_valueless
from fastapi_cacheinval.routes.misread import misread_in
from fastapi_cacheinval.routes.moves import HANDLER, moves
from fastapi_cacheinval.routes.names import Names
from fastapi_cacheinval.routes.parameters import tells_callers_apart

__all__ = ["Advice", "advice"]


class Advice(NamedTuple):
    """The same for one handler, by its name, and for several of one cause."""

    text: str = ""
    of_handlers: str = ""


def advice(root: Node, cached: Cached | None, found: Sequence[Uncovered], helpless: Sequence[Evidence]) -> Advice:
    """Why the covers that are given fall short, and what to write.

    `helpless` is what no cover helps against. The line that works comes last; it is left out where
    more has to be changed than these sentences say. Nothing here skips a check.
    """
    if cached is None or not (found or helpless):
        return Advice()
    sentences = _sentences(root, cached, found, helpless)
    # A sentence may begin with it.
    general = [re.sub(f"^{HANDLER}", "The handler", each).replace(HANDLER, "the handler") for each in sentences]
    return Advice(" ".join(sentences).replace(HANDLER, root.label), " ".join(general))


def _sentences(root: Node, cached: Cached, found: Sequence[Uncovered], helpless: Sequence[Evidence]) -> list[str]:
    covers, names, misread = Covers.of(root, cached), Names(root), misread_in(root, cached)
    reasons = [each.told for each in misread.values()]
    rest = replace(covers, partitions=tuple(each for each in covers.partitions if each.identity not in misread))
    if rest.partitions or rest.guards:
        reasons += [_reason(names, rest, each) for each in found]
    kept = [*rest.partitions, *rest.guards]
    first = names.to_be_made([*kept, *(each.node for each in found)])
    unsolved = [each for each in found if not each.node.reused]
    if unsolved:
        solved = ", ".join(names.spelled(each.node) for each in unsolved)
        declare = f"Declare {solved} without use_cache=False, so that it is solved once per request."
        return [*filter(None, [first, *reasons, declare])]
    moved, valueless = moves(root, cached, helpless), told_of_valueless(found, names, root)
    written = covers_line(root, names, covers, cached, found, moved, misread)
    keyed_anew = [*(each.node for each in found if each.unkeyed and each.taken), *kept]
    keys = [key_for(node, root) for node in keyed_anew]
    parts = [*dict.fromkeys(key.told for key in keys if key.text in written)]
    parts += _for_all(root, names, cached, found, written) if any(parts) else []
    unchecked = [each.node for each in found if each.unkeyed and each.taken and security_scheme(each.node.call)]
    told = [_unchecked(names.spelled(node)) for node in unchecked]
    conditions = [*filter(None, [moved.unless, *(each.unless for each in misread.values())])]
    conditions += [f"{HANDLER} checks nothing of it"] if unchecked else []
    left = told_of_left_behind([*kept, *(each.node for each in found)], names)
    works = " and ".join([*(["if not"] if left else []), *(f"if {each}" for each in conditions)])
    works += ", this line works" if works else "this line works"
    works = works[0].upper() + works[1:] + (" with that" if any(parts) else "")
    module = names.module if "_by=" in written else ""
    works += f", with the names of {module}" if module else ""
    line = [] if moved.open or valueless else [left, f"{works}: cached(..., {written})."]
    if not found and not moved.partitions and not moved.shared:
        # Nothing has to be added to the policy.
        line = []
    place = [_outside(names, each.node, root) for each in found] if line else []
    return [*filter(None, [first, *reasons, *moved.sentences, *told, *valueless, *parts, *dict.fromkeys(place), *line])]


def _for_all(root: Node, names: Names, cached: Cached, found: Sequence[Uncovered], written: str) -> list[str]:
    """How an author says that a value is for all, such as a container: only the raw request may tell callers apart."""
    if not cached.policy.request_is_shared:
        return []
    of_request = [
        names.spelled(each.node)
        for each in found
        if each.unkeyed
        and each.taken
        and not tells_callers_apart(each.node, request_is_shared=True)
        and keyed(each.node, root, names) in written
        and key_for(each.node, root).told
    ]
    those = " or ".join(of_request)
    return [f"If nothing of {those} tells callers apart, key=lambda value: None says so."] if of_request else []


def _outside(names: Names, node: Node, root: Node) -> str:
    """Where a line stands that names the class in whose body the route is: there its name is not known yet."""
    call, handler = node.identity[0], unwrap(root.call)
    if not isclass(call) or not str(getattr(handler, "__qualname__", "")).startswith(f"{call.__qualname__}."):
        return ""
    return (
        f"{HANDLER} is declared inside of {names.spelled(node)}, where that name is not known yet: take its "
        "cached() away, and give include_router() of its router this one, in dependencies=[...]. There it counts for "
        "every GET of that router: write cached(ttl=0) at those that are not to be cached."
    )


def _unchecked(scheme: str) -> str:
    return (
        f"{HANDLER} is handed what {scheme} reads of the request, and a hit skips what {HANDLER} checks of it: check "
        "it in a dependency that gives who is calling, and name that in partition_by."
    )


def _reason(names: Names, covers: Covers, each: Uncovered) -> str:
    name = names.spelled(each.node)
    given = _given(names, covers)
    if not each.node.reused:
        return f"{given} falls short: {name} is solved once more, and may give another value."
    if each.skipped and not each.unkeyed:
        on = [names.spelled(node) for node in each.node.walk() if node is not each.node and covers.keeps(node)]
        fed = f"depends on {', '.join(dict.fromkeys(on))}, " if on else ""
        return f"{given} falls short: {name} {fed}may refuse the caller, and would not run on a hit."
    if each.taken and covers.guards_only(each.node):
        return f"{given} falls short: the value of {name} is used, and the value of a guard is in no cache key."
    twin = names.twin_of(each.node, [*covers.partitions, *covers.guards])
    same = f" If both are to be the same, make it once, and write {twin} in both places." if twin else ""
    return f"{given} falls short: it does not cover {name}.{same}"


def _given(names: Names, covers: Covers) -> str:
    partitions = [names.spelled(node) for node in covers.partitions]
    return fields_of(partitions, [names.spelled(node) for node in covers.guards])
