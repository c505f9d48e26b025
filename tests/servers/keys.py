"""Whether what was left in Redis goes away by itself."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import redis


def keys_without_a_ttl(client: redis.Redis, permanent_prefixes: Iterable[str] = ()) -> dict[str, list[str]]:
    """The keys that stay for ever, by type, but for those that begin with one of these prefixes."""
    declared = tuple(permanent_prefixes)
    names = [_text(key) for key in client.scan_iter(count=1000)]
    pipeline = client.pipeline(transaction=False)
    for name in names:
        pipeline.ttl(name)
        pipeline.type(name)
    replies: list[Any] = pipeline.execute()
    found: defaultdict[str, list[str]] = defaultdict(list)
    for name, ttl, kind in zip(names, replies[::2], replies[1::2], strict=True):
        if ttl == -1 and not name.startswith(declared):
            found[_text(kind)].append(name)
    return {kind: sorted(found[kind]) for kind in sorted(found)}


def every_key_has_a_ttl_or_is_permanent(client: redis.Redis, permanent_prefixes: Iterable[str] = ()) -> None:
    """Fail, and name them by type, if there are keys that stay for ever and are not declared to."""
    found = keys_without_a_ttl(client, permanent_prefixes)
    assert not found, "these keys have no TTL and are not declared permanent:\n" + "\n".join(
        f"  {kind}: {', '.join(names)}" for kind, names in found.items()
    )


def _text(word: str | bytes) -> str:
    return word.decode(errors="backslashreplace") if isinstance(word, bytes) else word
