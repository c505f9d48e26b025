"""An HTTP cache inside a FastAPI app: tagged responses, and mutations that invalidate them by themselves.

This file is the composition root of the public names: it has nothing of its own.
"""

from __future__ import annotations

from fastapi_cacheinval.cache import HTTPCache
from fastapi_cacheinval.core.audit import Audit, MutationAudit, RouteAudit, TagHole
from fastapi_cacheinval.core.downstream import KeepFor, path_key
from fastapi_cacheinval.core.events import ConnectionEvent, Decision, Event, PurgeEvent, Receipt, ResetEvent
from fastapi_cacheinval.core.explanation import Explanation, StoredCopy
from fastapi_cacheinval.core.partition_by import PartitionBy
from fastapi_cacheinval.core.policy import CachePolicy
from fastapi_cacheinval.core.rfc9111.options import HeaderOptions, HeaderRule
from fastapi_cacheinval.core.shadowing import ShadowStatistics
from fastapi_cacheinval.core.should_store import ResponseToStore
from fastapi_cacheinval.core.statistics import RouteStatistics, SourceState, Statistics
from fastapi_cacheinval.core.tags import TagTemplate, render_value
from fastapi_cacheinval.core.warming import WarmReport, WarmResult
from fastapi_cacheinval.dependencies import CacheTags, cached, invalidates, invalidates_nothing
from fastapi_cacheinval.engine.request_tags import add_tags, purge_with_request
from fastapi_cacheinval.errors import (
    CacheinvalError,
    CacheNotRunning,
    CallerDependentRoute,
    ConfigurationError,
    MiddlewareMissing,
    PurgeNotDelivered,
    RefusedRoute,
    RefusedRoutes,
    ReplicasUnknown,
    UnknownRoute,
)
from fastapi_cacheinval.middleware import CacheMiddleware
from fastapi_cacheinval.ports.downstream import Downstream
from fastapi_cacheinval.unstarted import audit_app
from fastapi_cacheinval.version import __version__

__all__ = [
    "Audit",
    "CacheMiddleware",
    "CacheNotRunning",
    "CachePolicy",
    "CacheTags",
    "CacheinvalError",
    "CallerDependentRoute",
    "ConfigurationError",
    "ConnectionEvent",
    "Decision",
    "Downstream",
    "Event",
    "Explanation",
    "HTTPCache",
    "HeaderOptions",
    "HeaderRule",
    "KeepFor",
    "MiddlewareMissing",
    "MutationAudit",
    "PartitionBy",
    "PurgeEvent",
    "PurgeNotDelivered",
    "Receipt",
    "RefusedRoute",
    "RefusedRoutes",
    "ReplicasUnknown",
    "ResetEvent",
    "ResponseToStore",
    "RouteAudit",
    "RouteStatistics",
    "ShadowStatistics",
    "SourceState",
    "Statistics",
    "StoredCopy",
    "TagHole",
    "TagTemplate",
    "UnknownRoute",
    "WarmReport",
    "WarmResult",
    "__version__",
    "add_tags",
    "audit_app",
    "cached",
    "invalidates",
    "invalidates_nothing",
    "path_key",
    "purge_with_request",
    "render_value",
]
