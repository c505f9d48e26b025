"""A worker: a source alone in a process, which tells of each purge and, where asked, waits before it is committed."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

from fastapi_cacheinval import HTTPCache, Receipt
from fastapi_cacheinval.contrib.kafka import KafkaSource, Record


def _tags(record: Record) -> list[str]:
    return [(record.value or b"").decode()]


async def main() -> None:
    """Consume until killed."""
    config = json.loads(os.environ["KAFKA"])
    cache = HTTPCache.from_url(os.environ["REDIS_URL"])
    hold = Path(os.environ["HOLD"]) if "HOLD" in os.environ else None

    async def then(receipt: Receipt) -> None:
        sys.stdout.write(f"purged {' '.join(receipt.tags)}\n")
        sys.stdout.flush()
        if hold is not None and hold.exists():
            await asyncio.Event().wait()

    await KafkaSource(cache, config, [os.environ["TOPIC"]], tags=_tags, then=then, batch_tags=1).run()


if __name__ == "__main__":
    asyncio.run(main())
