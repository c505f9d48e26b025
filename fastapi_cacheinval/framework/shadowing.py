"""Making a hit again in the background, and comparing what the app answers with what is stored.

Such a request goes forward as if the cache were off: it takes no lock, stores nothing, purges nothing and is counted
as no request. It carries its caller's own fields.
"""

from __future__ import annotations

import logging

from starlette.types import Scope

from fastapi_cacheinval.core.events import digest_of
from fastapi_cacheinval.core.statistics import route_label
from fastapi_cacheinval.core.stored import StoredResponse
from fastapi_cacheinval.framework.app_context import AppContext
from fastapi_cacheinval.framework.asking_again import answer_of_app, plain_again, says_the_same

__all__ = ["order_shadow"]

logger = logging.getLogger("fastapi_cacheinval.shadow")


def order_shadow(
    app_context: AppContext, scope: Scope, headers: list[tuple[bytes, bytes]], stored: StoredResponse
) -> None:
    """Make a request again in the background that was answered with this response, if it is drawn."""
    cache, engine = app_context.cache, app_context.engine
    if not cache.running or not cache.shadow.begins():
        return
    shadow, runtime = cache.shadow, cache.runtime
    changes = engine.replica.changes
    again = plain_again(scope, headers, engine.replica.stamp(engine.now()))

    async def run() -> None:
        outcome = "failed"
        try:
            answer = await answer_of_app(app_context, runtime, again)
            if engine.replica.changes != changes or not cache.enabled:
                # It may read what has been written meanwhile.
                outcome = "skipped"
            elif answer is not None and answer.status < 500:
                outcome = "equal" if says_the_same(stored, answer) else "different"
        except Exception:  # what the app raises, it raises to nobody
            logger.debug("a hit could not be made again", exc_info=True)
        finally:
            if shadow.ended(outcome, stored.route):
                logger.warning(
                    "%s answers otherwise than what is stored of it (key %s): it may depend on the caller or the time, "
                    "or has changed without a purge. Said once for each route.",
                    route_label(stored.route),
                    digest_of(stored.key),
                )

    runtime.own(run())
