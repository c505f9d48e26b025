"""What goes wrong between a transaction and its purge."""

from __future__ import annotations

from fastapi_cacheinval import CacheinvalError, PurgeNotDelivered

__all__ = ["CommitRefused", "CommittedNotPurged", "UnknownRows"]


class CommitRefused(CacheinvalError):
    """Raised before a commit under `mutations_when_disconnected="refuse"`: `tags` could not be purged after it."""

    def __init__(self, tags: tuple[str, ...]) -> None:
        self.tags = tags
        super().__init__(
            f"The transaction is not committed: the purge log is out of reach, so the {len(tags)} tag(s) that it "
            'changes could not be purged, and mutations_when_disconnected is "refuse". Roll back, and try again later.'
        )


class CommittedNotPurged(PurgeNotDelivered):
    """The transaction is committed, but what it changed is neither purged nor queued: purge `tags` by hand."""

    def __init__(self, tags: tuple[str, ...], reason: str, *, cure: str = "") -> None:
        super().__init__(tags, reason, queued=False, cure=cure)
        self.args = (
            (
                f"The transaction is committed, but its {len(tags)} tag(s) could not be purged ({reason}), and "
                "nothing is queued, because the cache is not started here. Do not repeat the transaction: purge the "
                f"error's tags by hand. {cure or 'Or use `async with cache:`.'}"
            ),
        )


class UnknownRows(CacheinvalError):
    """A statement whose rows cannot be told, on a class without a `wide` tag.

    Raised before it is run: it has changed nothing. A write inside the SQL expression of an attribute raises it at the
    flush. It is also raised for an `INSERT ... SELECT` into an association table, and for a statement on a table that a
    class has only as a part of a join.
    """

    def __init__(self, name: str, what: str) -> None:
        super().__init__(
            f"{what}: which rows of {name} it changes, and what their tags were, cannot be told. Declare tags that "
            f"stand for any row, collect_changes(..., wide={{{name}: [...]}}), [...] being a tag that every page with "
            f'rows of {name} carries, such as "all-{name.lower()}"; or change the rows through the session.'
        )
