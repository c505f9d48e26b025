"""What the server has to be: each rule looks at one thing and says how it is."""

from __future__ import annotations

from fastapi_cacheinval.core.doctor.examination import Examination
from fastapi_cacheinval.core.doctor.finding import Finding, Level

__all__ = ["access", "clock", "eviction", "latency", "memory", "persistence", "role", "version", "write_safety"]

# The oldest that trims a stream by id, as the log does.
_OLDEST = {"redis": (6, 2), "valkey": (7, 2)}
_FULL = 0.9
_SLOW = 0.005
_SKEW = 1.0
_SAME = 0.1
_MIB = 1024 * 1024


def version(seen: Examination) -> Finding:
    """The server knows the commands."""
    server = seen.server
    if server.version is None:
        return _untold("version", "its version")
    written = f"{server.kind.capitalize()} {'.'.join(map(str, server.version))}"
    oldest = _OLDEST.get(server.kind, (6, 2))
    if server.version < oldest:
        needed = ".".join(map(str, oldest))
        return Finding(
            "version", Level.ERROR, f"{written} is too old.", f"Use {server.kind.capitalize()} {needed} or later."
        )
    return Finding("version", Level.OK, f"{written}.")


def role(seen: Examination) -> Finding:
    """Purges are written here."""
    match seen.server.role:
        case None:
            return _untold("role", "whether it is a primary")
        case "slave":
            return Finding(
                "role",
                Level.ERROR,
                "The URL leads to a replica of another server: it refuses purges.",
                "Name the primary, or Sentinels: redis+sentinel://host:26379/service.",
            )
        case _:
            return Finding("role", Level.OK, "The URL leads to a primary.")


def eviction(seen: Examination) -> Finding:
    """The log must not be evicted while stored responses could be."""
    server = seen.server
    if server.policy is None:
        return _untold("eviction", "its maxmemory-policy")
    if not server.max_memory:
        return Finding("eviction", Level.OK, f"Nothing is evicted: maxmemory is not set ({server.policy}).")
    if server.policy.startswith("allkeys"):
        return Finding(
            "eviction",
            Level.WARNING,
            f"maxmemory-policy is {server.policy}: the purge log may be evicted. Then every replica starts with an "
            "empty cache.",
            "CONFIG SET maxmemory-policy volatile-lru: stored responses have a TTL, the log has none.",
        )
    if server.policy == "noeviction":
        return Finding(
            "eviction",
            Level.WARNING,
            "maxmemory-policy is noeviction: a full server refuses purges and heartbeats. Nothing is cached then.",
            "CONFIG SET maxmemory-policy volatile-lru: a full server then drops stored responses.",
        )
    return Finding("eviction", Level.OK, f"maxmemory-policy is {server.policy}: the log is never evicted.")


def memory(seen: Examination) -> Finding:
    """There is room."""
    server = seen.server
    if server.used_memory is None or server.max_memory is None:
        return _untold("memory", "how full it is")
    used = f"{server.used_memory / _MIB:,.0f} MiB"
    if not server.max_memory:
        return Finding(
            "memory",
            Level.WARNING,
            f"{used} are used, and maxmemory is not set: the server grows until the machine ends it.",
            "CONFIG SET maxmemory 256mb, or what the machine has to spare.",
        )
    share = server.used_memory / server.max_memory
    found = f"{used} of {server.max_memory / _MIB:,.0f} MiB are used ({share:.0%})."
    if share >= _FULL:
        return Finding("memory", Level.WARNING, found, "Raise maxmemory, or give responses a shorter ttl.")
    return Finding("memory", Level.OK, found)


def persistence(seen: Examination) -> Finding:
    """It is not needed; a server that loads old data is noticed by its replication id."""
    match seen.server.persistent:
        case None:
            return _untold("persistence", "whether it keeps its data")
        case True:
            if seen.server.write_errors:
                return Finding(
                    "persistence",
                    Level.ERROR,
                    f"The server could not write its data to disk ({seen.server.write_errors}): it may refuse purges.",
                    "Look at the server's log and its disk; or switch persistence off: the cache does not need it.",
                )
            return Finding("persistence", Level.OK, "The server keeps its data on disk. The cache does not need that.")
        case False:
            return Finding("persistence", Level.OK, "The server keeps nothing on disk. The cache does not need that.")


def write_safety(seen: Examination) -> Finding:
    """A primary that is cut off from its replicas must not take purges that the others never see."""
    server = seen.server
    if server.replicas is None:
        return _untold("failover", "of its replicas")
    if not server.replicas:
        return Finding(
            "failover", Level.OK, "The server has no replicas: there is no failover that could lose a purge."
        )
    if server.min_replicas is None:
        return Finding(
            "failover",
            Level.UNKNOWN,
            f"{server.replicas} servers follow this one, and min-replicas-to-write is not known.",
            "Allow the user +config|get, or look it up: it should be at least 1.",
        )
    if not server.min_replicas:
        return Finding(
            "failover",
            Level.WARNING,
            "min-replicas-to-write is 0: a primary that is cut off goes on taking purges, and a failover loses them.",
            "CONFIG SET min-replicas-to-write 1, and min-replicas-max-lag 2.",
        )
    return Finding(
        "failover",
        Level.OK,
        f"A purge needs {server.min_replicas} of {server.replicas} replicas of the server in touch.",
    )


# Without these all works, if later.
_SPARED = frozenset({"exists", "info", "publish", "sadd", "srem", "subscribe"})


def access(seen: Examination) -> Finding:
    """The user may do what a replica of the app does."""
    allowed = seen.access
    name = f"the user {allowed.user!r}" if allowed.user else "the user of the URL"
    if not allowed.known:
        return Finding(
            "access", Level.UNKNOWN, f"The server does not tell what {name} may do.", "Allow the user +acl|dryrun."
        )
    if allowed.refused:
        level = Level.WARNING if _SPARED.issuperset(allowed.refused) else Level.ERROR
        return Finding(
            "access",
            level,
            f"{name[0].upper()}{name[1:]} may not run {', '.join(allowed.refused)}.",
            f"ACL SETUSER {allowed.user or 'NAME'} {' '.join(f'+{each}' for each in allowed.refused)}, "
            "with the keys and channels of the namespace.",
        )
    return Finding("access", Level.OK, f"{name[0].upper()}{name[1:]} may do all that the cache does.")


def latency(seen: Examination) -> Finding:
    """A heartbeat and a look-up in L2 are one round trip each."""
    median = seen.latency
    if median is None:
        return Finding("latency", Level.UNKNOWN, "No round trip was measured.")
    slowest = max(seen.round_trips)
    found = (
        f"A round trip takes {median * 1000:.1f} ms, the slowest of {len(seen.round_trips)} {slowest * 1000:.1f} ms."
    )
    if median >= _SLOW:
        return Finding(
            "latency", Level.WARNING, found, "Run Redis near the app: a miss asks it once before the handler runs."
        )
    return Finding("latency", Level.OK, found)


def clock(seen: Examination) -> Finding:
    """No purge depends on clocks; what people read does."""
    ahead = seen.clock_ahead
    if ahead is None:
        return Finding("clock", Level.UNKNOWN, "The clocks were not compared.")
    if abs(ahead) < _SAME:
        return Finding("clock", Level.OK, "This machine's clock and the server's agree.")
    side = "ahead of" if ahead > 0 else "behind"
    found = f"This machine's clock is {abs(ahead):.1f} s {side} the server's."
    if abs(ahead) >= _SKEW:
        return Finding(
            "clock",
            Level.WARNING,
            f"{found} No purge depends on it; times in logs and traces do.",
            "Run NTP on both machines.",
        )
    return Finding("clock", Level.OK, found)


def _untold(check: str, what: str) -> Finding:
    """What the server would say to a user who may ask for INFO."""
    return Finding(check, Level.UNKNOWN, f"The server does not tell {what}.", "Allow the user +info.")
