# SPDX-License-Identifier: GPL-3.0-or-later
"""How a step hears of a cancel: at once where it looks, and within two seconds while it waits."""

from __future__ import annotations

import time

import pytest

from overkeep.controller.activities.steps import JobCancelled, Watch
from tests.controller.world import World, disk, vm


def test_of_many_short_waits_few_ask_whether_the_job_is_to_end(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(world.store.jobs, "cancel_requested", lambda job_id: bool(asked.append(job_id)))
    watch = Watch(ports=world.ports, job_id="j")
    began = time.monotonic()
    for _ in range(20):
        watch.pause(0.001)
    assert len(asked) <= 1 + (time.monotonic() - began)
    before = len(asked)
    for _ in range(3):
        watch.check()
    assert len(asked) == before + 3, "who looks by himself asks each time"


def test_a_long_wait_ends_soon_after_a_cancel(world: World) -> None:
    world.add(vm("web", disk("root")))
    job = world.write_backup_job()
    watch = Watch(ports=world.ports, job_id=job.id)
    watch.check()
    world.store.jobs.request_cancel(job.id)
    began = time.monotonic()
    with pytest.raises(JobCancelled):
        watch.pause(60)
    assert time.monotonic() - began < 30
