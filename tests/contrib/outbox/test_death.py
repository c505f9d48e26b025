"""A process that is killed between its commit and its purge loses nothing."""

from __future__ import annotations

import pytest

from tests.helpers.outbox import Shop, death_at_every_step

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(300)]


async def test_killed_at_any_step_from_the_commit_to_the_deletion_a_writer_loses_nothing(
    opened: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wherever it dies, what it has committed reaches the replica through another relay."""
    killed, committed, lost = await death_at_every_step(opened, outbox=True)
    with capsys.disabled():
        print(f"\n{killed} killed, {committed} of them after the commit: no purge lost")  # noqa: T201  # the result
    assert lost == []
    assert killed > 20
    assert committed > 10


async def test_without_the_outbox_a_writer_that_is_killed_loses_its_purge(
    opened: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    """The control: killed between the commit and a purge by hand, it leaves the old price where it was."""
    killed, committed, lost = await death_at_every_step(opened, outbox=False)
    with capsys.disabled():
        print(f"\n{killed} killed without it, {committed} after the commit: {len(lost)} lost")  # noqa: T201  # the result
    assert lost
