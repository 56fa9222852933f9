# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the time of a backup went is told of each VM, also when a controller died on the way."""

from __future__ import annotations

import datetime as dt
import json

from overkeep.controller.records import Job, Spent
from overkeep.controller.workflows.spent import spent_text
from overkeep.mover.orders import CopyOrder, CopyResult
from overkeep.units import utc_now
from tests.controller.world import World, disk, succeeded, vm


def spent(job: Job) -> Spent:
    [only] = job.vms
    assert only.spent is not None
    return only.spent


def whole(one: Spent) -> float:
    return one.engine + one.copying + one.other + one.after


def test_the_parts_are_all_of_the_time(world: World) -> None:
    world.add(vm("web", disk("root"), disk("data")))
    began = utc_now()
    job = world.start_backup()
    assert world.store.jobs.get(job.id).vms[0].spent is None, "not before its end"
    job = world.finish(job)
    assert succeeded(job)
    found = spent(job)
    assert 0 < found.engine < whole(found) <= (utc_now() - began).total_seconds()
    assert found.copying == 0.1, "as the mover tells it, of disks that are copied side by side the longest"
    assert found.other >= 0


def test_a_wait_for_the_manager_counts_as_that(world: World) -> None:
    world.add(vm("web", disk("root")))
    world.memory.slow = {"web-vm"}
    job = world.start_backup()
    world.until(world.memory.open_backups)
    began = utc_now()
    world.until(lambda: utc_now() - began > dt.timedelta(seconds=1.5))
    world.memory.slow = set()
    found = spent(world.finish(job))
    assert found.engine >= 1.4
    assert found.other < found.engine


def test_what_was_spent_before_a_death_is_counted(world: World) -> None:
    tries: list[CopyOrder] = []

    def copy(order: CopyOrder) -> CopyResult:
        tries.append(order)
        return world.write_image(order)

    world.mover.outcome = copy
    world.add(vm("web", disk("root")))
    world.engine.arm_at("finalize_backup", after=True)
    job = world.start_backup()
    world.until(world.engine.died.is_set)
    world.restart()
    found = spent(world.finish(job))
    assert (len(tries), found.copying) == (1, 0.1)
    assert found.engine > 0, "what was waited before the death is not lost"


def test_a_vm_that_failed_tells_it_too(world: World) -> None:
    world.add(vm("web", disk("root")))
    world.memory.hold("web-vm", "VM is locked by a migration.")
    job = world.back_up()
    assert not succeeded(job)
    assert spent(job).copying == 0
    assert spent(job).other > 0


def test_the_sum_of_what_steps_hand_on() -> None:
    def at(second: float) -> str:
        return (dt.datetime(2026, 1, 1, tzinfo=dt.UTC) + dt.timedelta(seconds=second)).isoformat()

    ended = dt.datetime.fromisoformat(at(20))
    state = {"began": at(0), "waited": 5.25, "copied": 3.5, "released_at": at(10)}
    assert json.loads(spent_text(state, ended)) == {"engine": 5.25, "copying": 3.5, "other": 1.25, "after": 10.0}
    assert json.loads(spent_text({**state, "waited": 9.0}, ended))["other"] == 0
    assert spent_text({}, ended) == "", "of a workflow that began with an earlier program"
