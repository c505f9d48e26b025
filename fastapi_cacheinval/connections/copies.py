"""Copies of a user's `redis.asyncio` client: the same settings, with connections of their own.

A client's pool belongs to the event loop that its connections were made on, and cannot tell which that is. The cache
lives on many loops, one after another or at the same time, so each gets a copy, and the user's own pool is left alone.
"""

from __future__ import annotations

import asyncio
import copy
import inspect
from collections.abc import Mapping
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.cluster import ClusterNode, RedisCluster

__all__ = ["copy_of", "sentinels_of"]

# What a pool writes into its connections' settings: it refers to that pool.
_OF_THE_POOL = frozenset(
    {
        "connection_pool",
        "maint_notifications_pool_handler",
        "oss_cluster_maint_notifications_handler",
        "orig_host_address",
        "orig_socket_timeout",
        "orig_socket_connect_timeout",
    }
)
# What a cluster keeps elsewhere than in its connections' settings. Reads go to primaries, as those of `from_url` do.
_OF_THE_CLUSTER = ("address_remap", "require_full_coverage", "reinitialize_steps")


def copy_of(client: Redis | RedisCluster, options: Mapping[str, Any], of_sentinels: Mapping[str, Any]) -> Any:
    """A client like this one without any connection yet; the options replace settings of its connections."""
    if isinstance(client, RedisCluster):
        return _cluster(client, options)
    return _single(client, options, of_sentinels)


def sentinels_of(client: Any) -> list[Any]:
    """The clients of the Sentinels behind a client, if any: the very list that is gone through to ask them."""
    manager = getattr(client.connection_pool, "sentinel_manager", None)
    return [] if manager is None else manager.sentinels


def _single(client: Any, options: Mapping[str, Any], of_sentinels: Mapping[str, Any]) -> Any:
    """A shallow copy, so that a subclass stays what it is, with a pool of its own."""
    made = copy.copy(client)
    made.connection_pool = _pool(client.connection_pool, options, of_sentinels)
    # The pool is the copy's alone, whoever made the first one.
    made.auto_close_connection_pool = True
    made.single_connection_client, made.connection = False, None
    attributes: dict[str, Any] = made.__dict__
    attributes |= {name: asyncio.Lock() for name, value in attributes.items() if isinstance(value, asyncio.Lock)}
    return made


def _pool(pool: Any, options: Mapping[str, Any], of_sentinels: Mapping[str, Any]) -> Any:
    kwargs = {name: value for name, value in pool.connection_kwargs.items() if name not in _OF_THE_POOL}
    kwargs |= {"connection_class": pool.connection_class, "max_connections": pool.max_connections, **options}
    if hasattr(pool, "timeout"):
        # How long a pool of a bounded size lets a call wait.
        kwargs["timeout"] = pool.timeout
    manager: Any = getattr(pool, "sentinel_manager", None)
    if manager is not None:
        manager = copy.copy(manager)
        manager.sentinels = [_single(sentinel, of_sentinels, {}) for sentinel in manager.sentinels]
        kwargs |= {"is_master": pool.is_master, "check_connection": pool.check_connection}
        return type(pool)(pool.service_name, manager, **kwargs)
    return type(pool)(**kwargs)


def _cluster(client: Any, options: Mapping[str, Any]) -> Any:
    kind: Any = RedisCluster
    known = inspect.signature(kind).parameters
    settings = {**client.connection_kwargs, **options}
    # A cluster's retries are how it follows a slot that has moved.
    kwargs = {name: value for name, value in settings.items() if name in known and name != "retry"}
    for name in _OF_THE_CLUSTER:
        for owner in (client, client.nodes_manager):
            if name in known and hasattr(owner, name):
                kwargs[name] = getattr(owner, name)
    kwargs["ssl"] = "SSL" in getattr(client.connection_kwargs.get("connection_class"), "__name__", "")
    nodes = [ClusterNode(node.host, node.port) for node in client.nodes_manager.startup_nodes.values()]
    return type(client)(startup_nodes=nodes, **kwargs)
