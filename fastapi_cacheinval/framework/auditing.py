"""The audit of an app: what its table of routes says."""

from __future__ import annotations

from fastapi_cacheinval.core.audit import Audit
from fastapi_cacheinval.errors import ConfigurationError, RefusedRoutes
from fastapi_cacheinval.routes.auditing import Around, audit_of
from fastapi_cacheinval.routes.table import RouteTable

__all__ = ["audit_table"]


def audit_table(table: RouteTable, around: Around) -> Audit:
    """What the routes of a table say of caching; what would keep the app from starting is in `refusals`."""
    refusals: tuple[str, ...] = ()
    try:
        table.audit()
    except RefusedRoutes as error:
        refusals = tuple(map(str, error.errors))
    except ConfigurationError as error:
        refusals = (str(error),)
    return audit_of(table.plans, around, refusals=refusals, warnings=table.warnings())
