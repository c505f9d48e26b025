"""From a URL, or a user's own client, to clients for the running event loop."""

from __future__ import annotations

from functools import partial
from typing import Any, Protocol
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

from redis.asyncio import Connection, Redis
from redis.asyncio.client import Pipeline
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import RedisClusterException, RedisError

from fastapi_cacheinval.connections.client import Client
from fastapi_cacheinval.connections.copies import copy_of, sentinels_of
from fastapi_cacheinval.connections.lane import MOST_CONNECTIONS
from fastapi_cacheinval.connections.replies import bounded, decodes, writes_ascii
from fastapi_cacheinval.connections.topology import Clustered, Single
from fastapi_cacheinval.core.checks import is_utf8
from fastapi_cacheinval.errors import ConfigurationError

__all__ = ["Connect", "by_client", "by_url"]


class Connect(Protocol):
    """Makes a client for the running event loop; nothing is sent before its first call.

    For `rest` seconds after an outage it does not try again.
    """

    def __call__(self, *, rest: float = 0.0) -> Client: ...


_SCHEMES = {"redis": "redis", "rediss": "rediss", "valkey": "redis", "valkeys": "rediss", "unix": "unix"}
_KINDS = ("cluster", "sentinel")
_SPARE = 2
_UNBOUNDED = 1 << 31
_FORMS = (
    "memory://, redis://host:6379/0, rediss://… (TLS), unix:///path/to/socket, valkey://…, "
    "redis+cluster://host:7000,host:7001, redis+sentinel://host:26379,host:26379/service/0"
)


def _plain(timeout: float | None = None) -> dict[str, Any]:
    """No tries and no clocks of the client's own, unless it is one of several to ask: `Client` has both."""
    return {
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "retry": Retry(NoBackoff(), 0),
        "decode_responses": False,
    }


def _of_sentinels(timeout: float) -> dict[str, Any]:
    """Where one Sentinel is silent another is asked within the same call."""
    return _plain(timeout / 2)


def _single_client(
    client: Any, timeout: float, most_bytes: int, rest: float, watchers: list[Any] | None = None
) -> Client:
    pool = client.connection_pool
    pool.connection_class = bounded(pool.connection_class, most_bytes)
    most = min(MOST_CONNECTIONS, pool.max_connections)
    # The lane keeps the number. A connection that is lost takes nobody's place.
    pool.max_connections = _UNBOUNDED
    return Client(client, Single(client, watchers), timeout, most=most, rest=rest)


def _cluster_client(cluster: Any, timeout: float, most_bytes: int, rest: float) -> Client:
    kwargs = cluster.nodes_manager.connection_kwargs
    kwargs["connection_class"] = bounded(kwargs.get("connection_class", Connection), most_bytes)
    for node in cluster.nodes_manager.startup_nodes.values():
        node.connection_class = bounded(node.connection_class, most_bytes)
    most = min(MOST_CONNECTIONS, kwargs.get("max_connections", MOST_CONNECTIONS))
    kwargs["max_connections"] = most + _SPARE
    return Client(cluster, Clustered(cluster, partial(_one_node, most_bytes)), timeout, most=most, rest=rest)


def by_url(url: str, timeout: float, most_bytes: int) -> Connect:
    """Raises `ConfigurationError` for a URL that names no Redis; it is not sent anything yet.

    Strings of a reply that have more than `most_bytes` are not read.
    """
    if not isinstance(url, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ConfigurationError(f"HTTPCache.from_url takes a URL as a str, not {type(url).__name__}: {_FORMS}.")
    scheme, separator, rest = url.partition("://")
    base, _, kind = scheme.partition("+")
    plain = _SCHEMES.get(base)
    if not separator:
        # What was written may hold a password.
        raise ConfigurationError(f"HTTPCache.from_url takes a URL with its scheme: {_FORMS}.")
    if plain is None or (kind and (kind not in _KINDS or plain == "unix")):
        raise ConfigurationError(f"HTTPCache.from_url does not know {scheme}://; it takes {_FORMS}.")
    if plain != "unix" and not is_utf8(rest):
        # What was written may hold a password.
        raise ConfigurationError("HTTPCache.from_url cannot read the URL: it has characters that UTF-8 cannot write.")
    if not rest:
        raise ConfigurationError(f"{scheme}:// names no server; HTTPCache.from_url takes {_FORMS}.")
    _readable(rest)
    try:
        if kind == "cluster":
            return _checked(_cluster(plain, rest, timeout, most_bytes))
        if kind == "sentinel":
            return _checked(_sentinel(plain, rest, timeout, most_bytes))
        return _checked(_single(plain, rest, timeout, most_bytes))
    except (ValueError, TypeError, AttributeError, RedisError, RedisClusterException) as error:
        raise ConfigurationError(f"HTTPCache.from_url cannot read the URL: {str(error).rstrip('.')}.") from error


def _readable(rest: str) -> None:
    """Refuse what is no URL. Python's own error repeats a part of the text, which may be a part of a password."""
    try:
        parts = urlsplit(f"//{rest}")
        for each in parts.netloc.rpartition("@")[2].split(","):
            urlsplit(f"//{each}")
    except ValueError:
        raise ConfigurationError(
            "HTTPCache.from_url cannot read the URL: its host is none. Brackets are for IPv6 addresses; "
            "a password with one of them, or with a slash, is percent-encoded."
        ) from None


def _checked(connect: Connect) -> Connect:
    """Make a client and a connection that are not used, so that what is wrong with them is said at start-up."""
    client = connect().client
    if decodes(client):
        raise ConfigurationError("The URL has decode_responses, and stored responses are bytes: leave it out.")
    if not writes_ascii(client):
        raise ConfigurationError("The URL has an encoding that does not write commands in ASCII: leave it out.")
    pool = getattr(client, "connection_pool", None)
    if pool is not None:
        pool.make_connection()
    return connect


def _from_url(url: str, **options: Any) -> Any:
    make: Any = getattr(Redis, "from_url")  # noqa: B009 - its annotations are of no use
    return make(url, **options)


def _single(scheme: str, place: str, timeout: float, most_bytes: int) -> Connect:
    url = f"{scheme}://{place}"
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    if scheme != "unix":
        _hosts(parts.netloc, 6379)
        _database(parts.path)
    elif host or not parts.path.strip("/"):
        raise ConfigurationError("A Unix socket is named by its whole path: unix:///path/to/socket.")

    def connect(*, rest: float = 0.0) -> Client:
        return _single_client(_from_url(url, **_plain()), timeout, most_bytes, rest)

    return connect


def _database(path: str) -> int:
    name = path.strip("/")
    if name and not name.isdecimal():
        if "@" in name:
            # The name is a part of a password.
            raise ConfigurationError(
                "What follows the host is no number of a database; a password with a slash in it is percent-encoded."
            )
        raise ConfigurationError(f"{name!r} is no number of a database.")
    return int(name or 0)


def _hosts(netloc: str, port: int) -> tuple[str, list[tuple[str, int]]]:
    """The user part, and each host with its port."""
    user, _, hosts = netloc.rpartition("@")
    found: list[tuple[str, int]] = []
    for each in hosts.split(","):
        parts = urlsplit(f"//{each}")
        try:
            found.append((parts.hostname or "localhost", parts.port or port))
        except ValueError:
            # The text is not repeated: what stands there may be a part of a password.
            raise ConfigurationError(
                "The URL's port is no number up to 65535; a password with a slash or a colon in it is percent-encoded."
            ) from None
    return user, found


def _cluster(scheme: str, place: str, timeout: float, most_bytes: int) -> Connect:
    parts = urlsplit(f"{scheme}://{place}")
    user, hosts = _hosts(parts.netloc, 6379)
    at = f"{user}@" if user else ""

    def first(host: str, port: int) -> str:
        name = f"[{host}]" if ":" in host else host
        return urlunsplit((scheme, f"{at}{name}:{port}", parts.path, parts.query, ""))

    def connect(*, rest: float = 0.0) -> Client:
        nodes = [ClusterNode(host, port) for host, port in hosts[1:]]
        options = {name: value for name, value in _plain().items() if name != "retry"}
        client = RedisCluster.from_url(first(*hosts[0]), startup_nodes=nodes or None, **options)
        return _cluster_client(client, timeout, most_bytes, rest)

    return connect


_OF_NODES = ("username", "password", "protocol", "credential_provider", "ssl", "client_name")


def _one_node(most_bytes: int, node: Any) -> Any:
    kwargs = dict(node.connection_kwargs)
    options = {name: value for name, value in kwargs.items() if name in _OF_NODES or name.startswith("ssl_")}
    if "SSL" in getattr(node.connection_class, "__name__", ""):
        options["ssl"] = True
    client = Redis(host=node.host, port=int(node.port), **{**options, **_plain()})
    pool: Any = client.connection_pool
    pool.connection_class = bounded(pool.connection_class, most_bytes)
    return client


def _sentinel(scheme: str, place: str, timeout: float, most_bytes: int) -> Connect:
    parts = urlsplit(f"{scheme}://{place}")
    user, hosts = _hosts(parts.netloc, 26379)
    service, _, number = parts.path.strip("/").partition("/")
    if not service:
        raise ConfigurationError("A Sentinel URL names its service: redis+sentinel://host:26379/service/0.")
    query = dict(parse_qsl(parts.query))
    of_sentinels = {
        name.removeprefix("sentinel_"): query.pop(name) for name in tuple(query) if name.startswith("sentinel_")
    }
    # What is left is said to the servers as redis-py would read it from a URL.
    options = _options_of(f"{scheme}://localhost/{_database(number)}?{urlencode(query)}")
    name, _, password = user.partition(":")
    if name:
        options["username"] = unquote(name)
    if password:
        options["password"] = unquote(password)
    if scheme == "rediss":
        options["ssl"] = True

    def connect(*, rest: float = 0.0) -> Client:
        sentinel_options: dict[str, Any] = {**of_sentinels, **_of_sentinels(timeout)}
        if scheme == "rediss":
            sentinel_options["ssl"] = True
        sentinel: Any = Sentinel(hosts, sentinel_kwargs=sentinel_options)  # type: ignore[no-untyped-call]
        client = sentinel.master_for(service, **{**options, **_plain()})
        return _single_client(client, timeout, most_bytes, rest, sentinel.sentinels)

    return connect


def _options_of(url: str) -> dict[str, Any]:
    pool = _from_url(url).connection_pool
    leave_out = ("host", "port", "retry", "connection_class")
    return {name: value for name, value in pool.connection_kwargs.items() if name not in leave_out}


def by_client(client: Any, timeout: float, most_bytes: int) -> Connect:
    """A user's own `redis.asyncio` client: each event loop gets a copy of it, and it is never used or closed itself.

    Strings of a reply that have more than `most_bytes` are not read.
    Raises `ConfigurationError` for anything else.
    """
    if not isinstance(client, Redis | RedisCluster) or isinstance(client, Pipeline):
        raise ConfigurationError(
            f"HTTPCache.from_client takes a redis.asyncio client (Redis, RedisCluster or one of a Sentinel), "
            f"not {type(client).__module__}.{type(client).__qualname__}."
        )
    if decodes(client):
        raise ConfigurationError(
            "The client decodes what it is answered (decode_responses=True), and stored responses are bytes: "
            "give the cache a client of its own without it."
        )
    if not writes_ascii(client):
        raise ConfigurationError(
            "The client's encoding does not write commands in ASCII: give the cache a client of its own without it."
        )

    def connect(*, rest: float = 0.0) -> Client:
        made = copy_of(client, _plain(), _of_sentinels(timeout))
        if isinstance(made, RedisCluster):
            return _cluster_client(made, timeout, most_bytes, rest)
        return _single_client(made, timeout, most_bytes, rest, sentinels_of(made))

    try:
        connect()
    except Exception as error:
        raise ConfigurationError(
            f"HTTPCache.from_client cannot make more clients like this {type(client).__qualname__}, one for each event "
            f"loop ({error}): use HTTPCache.from_url."
        ) from error
    return connect
