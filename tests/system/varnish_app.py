"""The example app with what the tests behind a Varnish look at: how its purger stands, and routes made for it."""

from __future__ import annotations

from collections import Counter
from typing import Any

from example_app.main import create_app
from fastapi_cacheinval import CacheTags, SourceState, cached

app = create_app()
calls: Counter[str] = Counter()


@app.get("/test/purger")
async def purger() -> dict[str, Any]:
    """How far the purger of this replica is."""
    state = app.state.cache.statistics().sources.get("cdn")
    if not isinstance(state, SourceState):
        return {}
    return {"received": state.received, "done": state.done, "waiting": state.waiting, "trouble": state.trouble}


@app.get("/test/calls")
async def handler_calls() -> dict[str, int]:
    """How often each handler of this module ran."""
    return dict(calls)


@app.get("/test/short", dependencies=[cached(ttl=2, jitter=0, early_refresh=0, tags=["short"])])
async def short() -> str:
    """The same for ever, and fresh for two seconds."""
    calls["short"] += 1
    return "short"


@app.get("/test/soft", dependencies=[cached(ttl=60, stale_while_revalidate=60, tags=["soft"])])
async def soft() -> dict[str, int]:
    """Another answer each time."""
    calls["soft"] += 1
    return {"call": calls["soft"]}


@app.post("/test/purge/{tag}")
async def purge(tag: str, soft: bool = False) -> dict[str, int]:
    """Purge a tag by hand."""
    receipt = await app.state.cache.invalidate(tag, soft=soft)
    return {"seq": receipt.seq}


@app.post("/test/purge-path")
async def purge_path(path: str) -> dict[str, int]:
    """Purge a path by hand."""
    return {"seq": (await app.state.cache.invalidate_url(path)).seq}


@app.get("/test/many", dependencies=[cached(ttl=60)])
async def many(tags: CacheTags) -> dict[str, int]:
    """More tags than fit into one line of Varnish's."""
    calls["many"] += 1
    tags.add(*(f"one-of-many-tags-number-{n:04}" for n in range(400)))
    return {"call": calls["many"]}


@app.get("/test/too-many", dependencies=[cached(ttl=60)])
async def too_many(tags: CacheTags) -> dict[str, int]:
    """More tags than Varnish may be told."""
    calls["too-many"] += 1
    tags.add(*(f"one-of-many-tags-number-{n:04}" for n in range(900)))
    return {"call": calls["too-many"]}


@app.get("/test/plain")
async def plain() -> dict[str, int]:
    """A route without a policy, which says nothing of how long to keep it."""
    calls["plain"] += 1
    return {"call": calls["plain"]}
