"""From a URL, or a user's own client, to clients for the running event loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

from redis.asyncio import Redis
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff

from fastapi_cacheinval.connections.client import Client
from fastapi_cacheinval.errors import ConfigurationError

__all__ = ["Connect", "by_client", "by_url"]

Connect = Callable[[], Client]
"""Makes a client for the running event loop; nothing is sent before its first call."""

_SCHEMES = {"redis": "redis", "rediss": "rediss", "valkey": "redis", "valkeys": "rediss", "unix": "unix"}
_KINDS = ("cluster", "sentinel")
_FORMS = (
    "memory://, redis://host:6379/0, rediss://… (TLS), unix:///path/to/socket, valkey://…, "
    "redis+cluster://host:7000,host:7001, redis+sentinel://host:26379,host:26379/service/0"
)


def _quick(timeout: float) -> dict[str, Any]:
    """No tries of the client's own, and no silence longer than ours: redis-py's defaults exceed the bound."""
    return {
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "retry": Retry(NoBackoff(), 0),
        "decode_responses": False,
    }


def by_url(url: str, timeout: float) -> Connect:
    """Raises `ConfigurationError` for a URL that names no Redis."""
    scheme, separator, rest = url.partition("://")
    base, _, kind = scheme.partition("+")
    plain = _SCHEMES.get(base)
    if not separator or plain is None or (kind and kind not in _KINDS):
        raise ConfigurationError(f"HTTPCache.from_url does not know {scheme or url!r}; it takes {_FORMS}.")
    if not rest:
        raise ConfigurationError(f"{scheme}:// names no server; HTTPCache.from_url takes {_FORMS}.")
    try:
        if kind == "cluster":
            return _cluster(plain, rest, timeout)
        if kind == "sentinel":
            return _sentinel(plain, rest, timeout)
        return _single(f"{plain}://{rest}", timeout)
    except ConfigurationError:
        raise
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"HTTPCache.from_url cannot read the URL: {error}.") from error


def _from_url(url: str, **options: Any) -> Any:
    make: Any = getattr(Redis, "from_url")  # noqa: B009 - its annotations are of no use
    return make(url, **options)


def _single(url: str, timeout: float) -> Connect:
    def connect() -> Client:
        client = _from_url(url, **_quick(timeout))
        return Client(client, timeout, owned=True, subscriber=lambda: client)

    # Now and not at the first call, so that what is wrong with it is said at start-up.
    _from_url(url)
    return connect


def _hosts(netloc: str, port: int) -> tuple[str, list[tuple[str, int]]]:
    """The user part, and each host with its port."""
    user, _, hosts = netloc.rpartition("@")
    found: list[tuple[str, int]] = []
    for each in hosts.split(","):
        parts = urlsplit(f"//{each}")
        if not parts.hostname:
            raise ConfigurationError(f"{each!r} is no host; write host:port,host:port.")
        found.append((parts.hostname, parts.port or port))
    return user, found


def _cluster(scheme: str, rest: str, timeout: float) -> Connect:
    parts = urlsplit(f"{scheme}://{rest}")
    user, hosts = _hosts(parts.netloc, 6379)
    at = f"{user}@" if user else ""

    def first(host: str, port: int) -> str:
        name = f"[{host}]" if ":" in host else host
        return urlunsplit((scheme, f"{at}{name}:{port}", parts.path, parts.query, ""))

    def connect() -> Client:
        nodes = [ClusterNode(host, port) for host, port in hosts[1:]]
        options = {name: value for name, value in _quick(timeout).items() if name != "retry"}
        client = RedisCluster.from_url(first(*hosts[0]), startup_nodes=nodes or None, **options)
        return Client(client, timeout, owned=True, subscriber=lambda: _node_of(client, timeout))

    _from_url(first(*hosts[0]))
    return connect


_OF_NODES = ("username", "password", "protocol", "credential_provider", "ssl", "client_name")


def _node_of(cluster: Any, timeout: float) -> Redis:
    """A client of one node: what is published on any is heard on all."""
    node = cluster.get_random_node()
    kwargs = dict(node.connection_kwargs)
    options = {name: value for name, value in kwargs.items() if name in _OF_NODES or name.startswith("ssl_")}
    if "SSL" in getattr(node.connection_class, "__name__", ""):
        options["ssl"] = True
    return Redis(host=node.host, port=int(node.port), **{**options, **_quick(timeout)})


def _sentinel(scheme: str, rest: str, timeout: float) -> Connect:
    parts = urlsplit(f"{scheme}://{rest}")
    user, hosts = _hosts(parts.netloc, 26379)
    service, _, database = parts.path.strip("/").partition("/")
    if not service:
        raise ConfigurationError("A Sentinel URL names its service: redis+sentinel://host:26379/service/0.")
    query = dict(parse_qsl(parts.query))
    of_sentinels = {
        name.removeprefix("sentinel_"): query.pop(name) for name in tuple(query) if name.startswith("sentinel_")
    }
    # What is left is said to the servers as redis-py would read it from a URL.
    options = _options_of(f"{scheme}://localhost/{database or 0}?{urlencode(query)}")
    name, _, password = user.partition(":")
    if name:
        options["username"] = unquote(name)
    if password:
        options["password"] = unquote(password)
    if scheme == "rediss":
        options["ssl"] = True

    def connect() -> Client:
        quick = _quick(timeout)
        sentinel_options: dict[str, Any] = {**of_sentinels, **quick}
        if scheme == "rediss":
            sentinel_options["ssl"] = True
        sentinel: Any = Sentinel(hosts, sentinel_kwargs=sentinel_options)  # type: ignore[no-untyped-call]
        client = sentinel.master_for(service, **{**options, **quick})
        return Client(client, timeout, owned=True, subscriber=lambda: client, also=sentinel.sentinels)

    return connect


def _options_of(url: str) -> dict[str, Any]:
    pool = _from_url(url).connection_pool
    leave_out = ("host", "port", "retry", "connection_class")
    return {name: value for name, value in pool.connection_kwargs.items() if name not in leave_out}


def by_client(client: Any, timeout: float) -> Connect:
    """A user's own `redis.asyncio` client, which is never closed; raises `ConfigurationError` for anything else."""
    if isinstance(client, RedisCluster):
        return lambda: Client(client, timeout, owned=False, subscriber=lambda: _node_of(client, timeout))
    if not isinstance(client, Redis):
        raise ConfigurationError(
            f"HTTPCache.from_client takes a redis.asyncio client (Redis, RedisCluster or one of a Sentinel), "
            f"not {type(client).__module__}.{type(client).__qualname__}."
        )
    if client.connection_pool.connection_kwargs.get("decode_responses"):
        raise ConfigurationError(
            "The client decodes what it is answered (decode_responses=True), and stored responses are bytes: "
            "give the cache a client of its own without it."
        )
    return lambda: Client(client, timeout, owned=False, subscriber=lambda: client)
