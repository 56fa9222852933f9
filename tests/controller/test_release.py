from __future__ import annotations

import pytest

from tests.controller.world import World, disk, succeeded, vm


def test_a_fault_of_ours_does_not_stop_the_release(world: World) -> None:
    world.add(vm("web", disk("root")))
    world.memory.fail("finalize_backup", ValueError("a mistake of ours"))
    world.memory.fail("finalize_backup", RuntimeError("another"), on=2)
    job = world.back_up()
    assert succeeded(job), job.failure
    world.assert_nothing_open()


def test_a_fault_of_ours_in_a_step_fails_the_job_and_releases(world: World) -> None:
    world.add(vm("web", disk("root")))
    world.memory.fail("start_transfer", ZeroDivisionError())
    job = world.back_up()
    assert job.failure.code == "internal"
    world.assert_nothing_open()
    world.assert_checkpoints_sound()


@pytest.mark.parametrize("name", ["web-vm", "web"])
def test_members_are_found_by_name_and_id(world: World, name: str) -> None:
    world.memory.add_vm(vm("web", disk("root")))
    [member] = world.controller.create_workload("w", [name, "web"]).members
    assert (member.vm_id, member.vm_name) == ("web-vm", "web")
