"""What an author has to change in a handler, or around it, before any cover can help."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fastapi_cacheinval.dependencies import Cached
from fastapi_cacheinval.routes.dependency_tree import Node
from fastapi_cacheinval.routes.evidence import Cause, Evidence
from fastapi_cacheinval.routes.filled_parameters import filled_by_decorators
from fastapi_cacheinval.routes.own_code import is_decorated, never_uses, reads_names
from fastapi_cacheinval.routes.parameter_text import MovedParameter, moved_parameter
from fastapi_cacheinval.routes.parameters import CREDENTIALS, may_read_all, raw_request, reads_for_all

__all__ = ["HANDLER", "Moves", "moves"]

# Stands for the handler's name, so that handlers of one cause have one text.
HANDLER = "\0"

# A handler that names one of these may ask its request who is calling, or refuse them.
_ASK_WHO = frozenset({"auth", "client", "cookies", "headers", "session", "state", "user"})


@dataclass(frozen=True, slots=True)
class Moves:
    """The sentences that say what to change.

    `partitions` are dependencies that these sentences have the author write, `shared` whether `request_is_shared=True`
    belongs to the line, `unless` what has to be true for that, and `open` whether no line is right before the author
    has decided more.
    """

    sentences: tuple[str, ...] = ()
    partitions: tuple[str, ...] = ()
    shared: bool = False
    unless: str = ""
    open: bool = False


def moves(root: Node, cached: Cached, helpless: Sequence[Evidence]) -> Moves:
    """What to change for what no cover helps against."""
    name, sentences, moved = HANDLER, list[str](), dict[str, MovedParameter]()
    of_request = Moves() if cached.policy.request_is_shared else _of_request(root)
    sentences += of_request.sentences
    open_ = of_request.open
    for field in root.declares.cookie_params:
        if may_read_all(field):
            open_ = True
            sentences.append(f"Take the single cookies that {name} needs in place of a model that may read all.")
            continue
        moved[field.name] = moved_parameter(field, root.call)
        sentences.append(_moved(name, field.name, moved[field.name]))
    for each in helpless:
        if each.cause is Cause.HEADER and each.parameter not in moved:
            field = next(field for field in root.declares.header_params if field.name == each.parameter)
            moved[field.name] = moved_parameter(field, root.call)
            sentences.append(_moved(name, field.name, moved[field.name]))
            if each.header not in CREDENTIALS:
                sentences.append(
                    f"If {each.header} holds no credential, leave it where it is and say so: cached(..., "
                    f"vary={[*cached.policy.vary, each.header]}) keeps one stored response per value."
                )
        elif each.cause is Cause.ALL_HEADERS:
            open_ = True
            sentences.append(f"Take the single headers that {name} needs in place of a model that may read all.")
        elif each.cause is Cause.SETS:
            open_ = True
            sentences.append(
                f"{each.name} must not take the response: set these fields in the handler, or in a middleware."
            )
        elif each.cause is Cause.ROUTE:
            open_ = True
            sentences.append(_ROUTE_READS)
    partitions = tuple(parameter.partition for parameter in moved.values() if parameter.partition)
    open_ = open_ or len(partitions) < len(moved)
    return Moves(tuple(dict.fromkeys(sentences)), partitions, of_request.shared, of_request.unless, open_)


def _of_request(root: Node) -> Moves:
    """What to change for the request that the handler is handed itself, and for what is made of it on the way."""
    name, raw, filled = HANDLER, raw_request(root), filled_by_decorators(root)
    word = (
        "If nothing that is read of the request tells callers apart or refuses them, say so: cached(..., "
        "request_is_shared=True)."
    )
    if filled:
        those = ", ".join(map(repr, filled))
        told = f"No dependency covers what the decorators of {name} fill: {those}. A hit skips what they check."
        it = "this" if len(filled) == 1 else "these"
        way = (
            f"Take {it} in a dependency that you name in partition_by, or in guarded_by if {name} needs no value of it."
        )
        return Moves((f"{told} {way} {word}",), open=True)
    if raw is None:
        return Moves()
    if never_uses(root.call, raw):
        return Moves((f"{name} never uses {raw!r}: remove the parameter.",))
    if reads_for_all(root):
        same = (
            f"What {name} makes of {raw!r} has to be the same for all who share a stored response, as its URLs are: "
            "request_is_shared=True says that."
        )
        return Moves((same,), shared=True)
    told = (
        f"No dependency covers what {name} reads of {raw!r} itself. Take what it reads as parameters, or in a "
        "dependency that you name in partition_by or guarded_by."
    )
    if is_decorated(root.call):
        by = f"Its decorators are handed {raw!r} too, and a hit skips what they check: let a dependency check that."
        return Moves((f"{told} {by} {word}",), open=True)
    if reads_names(root.call, _ASK_WHO):
        return Moves((f"{told} {word}",), open=True)
    unless = f"whatever {name} hands {raw!r} to, such as a template, neither tells callers apart nor refuses them"
    return Moves((told,), shared=True, unless=unless)


def _moved(handler: str, parameter: str, moved: MovedParameter) -> str:
    name = moved.name
    way = f"Move {parameter!r} into one: {moved.definition}. In {handler} take {moved.parameter}."
    if not moved.definition:
        way = (
            f"Move {parameter!r} with its annotation and default into a dependency {name} that returns it, and take "
            f"Depends({name}) in its place."
        )
    keyed = "" if moved.partition else f" Give it a key that tells its values apart: PartitionBy({name}, key=...)."
    return (
        f"No dependency covers what {handler} reads itself. {way} A hit skips what {handler} checks of it: let {name} "
        f"check that.{keyed}"
    )


_ROUTE_READS = (
    "No dependency covers what the route itself is handed. Use a plain route: code that is to run around several "
    "routes can be a middleware, whose changes go to their own caller alone."
)
