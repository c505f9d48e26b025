"""What is put into a route that is known, so that the cache works at it."""

from __future__ import annotations

from fastapi_cacheinval.routes.endpoint_calls import hook, note_calls
from fastapi_cacheinval.routes.fastapi_private import hook_handler, original_of
from fastapi_cacheinval.routes.plan import SAFE_METHODS
from fastapi_cacheinval.routes.route_levels import Known

__all__ = ["hook_known"]


def hook_known(known: Known, *, always: bool = False) -> None:
    """Hook a route as far as its plan asks for it; `always` has it note each request that arrives."""
    plan = known.analysis.plan
    unsafe = not plan.methods <= SAFE_METHODS
    if always or plan.layered or unsafe:
        hook(original_of(known.route))
    # Where what is stored does not answer, its handler goes on from what its covers gave.
    if plan.around or (plan.policy is not None and not plan.front):
        hook_handler(known.route)
    if unsafe:
        note_calls(known.route)
