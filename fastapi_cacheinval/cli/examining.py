"""Finding out what `cacheinval doctor` judges. Nothing is changed; what the server refuses to tell stays unknown."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping
from typing import Any

from fastapi_cacheinval.bus.call import LogKeys
from fastapi_cacheinval.bus.entries import by_name
from fastapi_cacheinval.cli.exits import CliError
from fastapi_cacheinval.cli.link import Link
from fastapi_cacheinval.connections.client import Away
from fastapi_cacheinval.core.doctor.examination import Access, Examination, Server
from fastapi_cacheinval.core.fleet import Fleet

__all__ = ["examined"]

_PINGS = 7


async def examined(link: Link) -> Examination:
    """All that can be found out; raises `CliError` where the server cannot be used at all."""
    # The first call connects, which is no round trip.
    refused = await _greeted(link)
    trips, ahead = ((), None) if refused else await _timed(link)
    info, config = await _info(link), await _config(link)
    fleet, unreadable = Fleet(link.target.namespace, 0.0, None), ""
    try:
        fleet = await link.fleet()
    except CliError as error:
        unreadable = error.message
    return Examination(
        server=_server(info, config),
        access=await _access(link),
        fleet=fleet,
        unreadable=unreadable,
        round_trips=trips,
        clock_ahead=ahead,
    )


async def _greeted(link: Link) -> bool:
    """Whether the server is there and refuses even the time; raises `CliError` where it cannot be used."""
    try:
        await link.ask("TIME")
    except CliError as error:
        if "NOPERM" in error.message or "no permissions" in error.message:
            return True
        raise
    return False


async def _timed(link: Link) -> tuple[tuple[float, ...], float]:
    """Round trips, and by how much our clock is ahead, from the shortest of them."""
    found: list[tuple[float, float]] = []
    for _ in range(_PINGS):
        sent, began = time.time(), time.perf_counter()
        seconds, micros = await link.ask("TIME")
        trip = time.perf_counter() - began
        found.append((trip, sent + trip / 2 - int(seconds) - int(micros) / 1_000_000))
        await asyncio.sleep(0)
    return tuple(trip for trip, _ in found), min(found)[1]


async def _quietly(link: Link, *parts: Any) -> Any:
    """An answer; None where it is refused, or cannot be had."""
    try:
        return await link.client.about(link.keys.state, *parts)
    except Away:
        return None


async def _info(link: Link) -> dict[str, str]:
    return _texts(await _quietly(link, "INFO"))


async def _config(link: Link) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in ("maxmemory", "maxmemory-policy", "min-replicas-to-write", "save", "appendonly"):
        found |= _texts(await _quietly(link, "CONFIG GET", name))
    return found


def _texts(reply: Any) -> dict[str, str]:
    """What a server tells by name, as a client or a protocol version gives it."""
    if isinstance(reply, bytes | str):
        lines = (line.partition(":") for line in _text(reply).splitlines())
        return {name: value for name, colon, value in lines if colon}
    if reply is None:
        return {}
    return {_text(name): _text(value) for name, value in by_name(reply).items()}


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _server(info: Mapping[str, str], config: Mapping[str, str]) -> Server:
    valkey = info.get("valkey_version")
    saves = config.get("save", "") != "" if "save" in config else None
    appends = info.get("aof_enabled") == "1" if info else None
    failed = [name for name in ("rdb_last_bgsave_status", "aof_last_write_status") if info.get(name, "ok") != "ok"]
    return Server(
        kind="valkey" if valkey else "redis",
        version=_version(valkey or info.get("redis_version", "")),
        role=info.get("role"),
        persistent=True if appends or saves else saves if appends is False else None,
        policy=config.get("maxmemory-policy") or info.get("maxmemory_policy"),
        max_memory=_whole(config.get("maxmemory") or info.get("maxmemory")),
        used_memory=_whole(info.get("used_memory")),
        min_replicas=_whole(config.get("min-replicas-to-write")),
        replicas=_whole(info.get("connected_slaves")),
        write_errors=", ".join(failed) or None,
    )


def _version(text: str) -> tuple[int, ...] | None:
    return tuple(map(int, re.findall(r"\d+", text)[:3])) or None


def _whole(text: str | None) -> int | None:
    return int(text) if text is not None and re.fullmatch(r"-?[0-9]{1,20}", text) else None


async def _access(link: Link) -> Access:
    """What the user may do, as the server itself says it of each command; nothing is run."""
    user = await _quietly(link, "ACL WHOAMI")
    if user is None:
        return Access(known=False)
    name, refused = _text(user), list[str]()
    for command in _commands(link.keys, link.target.prefix):
        answer = await _quietly(link, "ACL DRYRUN", name, *command)
        if answer is None:
            return Access(user=name, known=False)
        if _text(answer) not in ("OK", "True"):
            refused.append(_text(command[0]))
    return Access(user=name, refused=tuple(dict.fromkeys(refused)))


def _commands(keys: LogKeys, prefix: str) -> list[tuple[Any, ...]]:
    """One command of each kind that a replica sends, about the keys that it sends it about."""
    stored, mine, waited = f"{prefix}:{{x}}:r", f"{{{prefix}}}:replica:x", keys.pending("x", "x")
    return [
        ("eval", "return 1", 1, keys.state),
        ("evalsha", "0" * 40, 1, keys.state),
        ("time",),
        ("info",),
        ("get", stored),
        ("set", stored, "x"),
        ("set", mine, "x"),
        ("del", stored),
        ("pttl", stored),
        ("hget", keys.acks, "x"),
        ("hmget", keys.state, "x"),
        ("hset", keys.acks, "x", "x"),
        ("hdel", keys.acks, "x"),
        ("hgetall", keys.acks),
        ("zadd", keys.tags, 1, "x"),
        ("zcard", keys.tags),
        ("zscore", keys.tags, "x"),
        ("zrem", keys.tags, "x"),
        ("zrangebyscore", keys.tags, 0, 1),
        ("zrevrangebyscore", keys.tags, 1, 0),
        ("xadd", keys.log, "*", "x", "x"),
        ("xrange", keys.log, "-", "+"),
        ("unlink", keys.log),
        ("sadd", waited, "x"),
        ("srem", waited, "x"),
        ("exists", waited),
        ("pexpire", waited, 1),
        ("publish", keys.channel, "x"),
        ("subscribe", keys.channel),
    ]
