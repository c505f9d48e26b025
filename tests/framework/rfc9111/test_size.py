"""What headers store is counted in bytes like what policies store."""

from __future__ import annotations

import gc
import tracemalloc

import pytest

from tests.helpers.origin import Origin

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("body", [100, 10_000])
async def test_the_size_that_is_reported_is_the_size_that_is_taken(body: int) -> None:
    """Within five percent of what the interpreter's own bookkeeping says, withheld fields and validators included."""
    origin = Origin(l1_max_bytes=64 * 1024 * 1024)
    count = 800

    async def fill(start: int) -> None:
        for number in range(start, start + count):
            path = f"/{number:08}"
            origin.says(
                {
                    "surrogate-control": f"max-age={1_000_000 + number}",
                    "etag": f'"{number:032}"',
                    "cache-tag": f"tag-{number:08}",
                    "x-own": f"value-{number:040}",
                },
                b"%d" % number * (body // 8),
                path=path,
            )
            await origin.get(path)
            del origin._script[path]
            origin.asked.clear()
            origin.bodies.clear()

    await fill(10_000_000)
    gc.collect()
    tracemalloc.start()
    try:
        said, taken = origin.cache.statistics().size_bytes, tracemalloc.get_traced_memory()[0]
        await fill(20_000_000)
        gc.collect()
        said = origin.cache.statistics().size_bytes - said
        taken = tracemalloc.get_traced_memory()[0] - taken
    finally:
        tracemalloc.stop()
    assert origin.cache.statistics().responses == 2 * count
    assert said == pytest.approx(taken, rel=0.05)


@pytest.mark.parametrize("chunks", [[b"x" * 1001], [b"x" * 1001, b""], [b"", b"x" * 1001], [b"x" * 500, b"x" * 501]])
async def test_a_body_over_the_limit_is_not_stored_however_it_comes(chunks: list[bytes]) -> None:
    """Without a `Content-Length`, in one message or in several."""
    origin = Origin(max_body_bytes=1000)
    origin.says({"cache-control": "max-age=60"}, chunks=chunks)
    for _ in range(2):
        answer = await origin.get()
        assert (answer.body, answer.cache.stored) == (b"x" * 1001, False)
    assert (origin.forwards, origin.cache.statistics().responses) == (2, 0)


async def test_a_body_of_the_limit_is_stored() -> None:
    """The limit itself is within it."""
    origin = Origin(max_body_bytes=1000)
    origin.says({"cache-control": "max-age=60"}, b"x" * 1000)
    assert await origin.reused()
