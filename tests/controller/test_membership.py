# SPDX-License-Identifier: GPL-3.0-or-later
"""Workloads with rules: who is in a run, who is not, and VMs that several workloads have."""

from __future__ import annotations

from dataclasses import replace

import pytest

from overkeep.controller.events import Filter, Kind
from overkeep.controller.records import JobState, Member
from overkeep.engine.errors import EngineUnreachable
from overkeep.errors import BadRequest, ChangedMeanwhile
from overkeep.model.selection import Rules, rule
from tests.controller.world import World, disk, succeeded, vm

PROD = Rules(include=(rule("tag=prod"),), exclude=(rule("name=*-test"),), disks=("web:scratch*",))
WEB, DB = Member(vm_id="web-vm", vm_name="web", by_rule=True), Member(vm_id="db-vm", vm_name="db", by_rule=True)


@pytest.fixture
def shop(world: World) -> World:
    """Three VMs, of which two bear the tag; one of those is excluded. The workload `demo` has rules alone."""
    for each in (vm("web", disk("root"), disk("scratch-1")), vm("db", disk("pg")), vm("db-test", disk("t"))):
        world.memory.add_vm(each)
    for name in ("web", "db-test"):
        world.memory.describe(f"{name}-vm", tags=("prod",))
    world.controller.create_workload("demo", (), rules=PROD)
    return world


def members(world: World, name: str = "demo") -> tuple[Member, ...]:
    return world.controller.workload(name).members


def test_rules_find_their_vms_before_each_run(shop: World) -> None:
    assert members(shop) == (WEB,)
    assert shop.controller.workload("demo").rules == PROD
    first = shop.back_up()
    assert succeeded(first)
    [point] = shop.repository.points()
    assert [image.name for image in point.images] == ["root"], "the other disk is left out"
    assert "'scratch-1' of VM 'web' is left out: the workload leaves it out" in shop.texts(first)
    shop.memory.describe("db-vm", tags=("prod",))
    both = shop.back_up()
    assert {one.vm_name: one.state for one in both.vms} == dict.fromkeys(("web", "db"), JobState.SUCCEEDED)
    assert set(members(shop)) == {WEB, DB}
    shop.memory.describe("web-vm", tags=())
    last = shop.back_up()
    assert [one.vm_name for one in last.vms] == ["db"]
    told = [event.text for event in shop.store.events.after(0, Filter(kind=Kind.WORKLOAD_MEMBERS))]
    assert told == [
        "By the rules of workload 'demo', VMs joined it: db",
        "By the rules of workload 'demo', VMs left it: web",
    ]
    shop.assert_nothing_open()


def test_when_the_rules_find_nothing_the_run_says_so(shop: World) -> None:
    shop.memory.describe("web-vm", tags=())
    job = shop.back_up()
    assert (job.state, job.failure.code) == (JobState.FAILED, "no-vms")
    assert "tag=prod" in job.failure.text
    assert members(shop) == (WEB,), "what is not known to be otherwise stays"


def test_when_the_manager_is_away_nobody_leaves(shop: World) -> None:
    shop.memory.fail("candidates", EngineUnreachable(url="u", reason="down"), times=100)
    job = shop.back_up()
    assert (job.state, job.failure.code) == (JobState.FAILED, "engine-unreachable")
    assert members(shop) == (WEB,)
    shop.memory.heal()
    assert succeeded(shop.back_up())


def test_what_is_tried_again_is_only_what_failed(shop: World) -> None:
    shop.memory.describe("db-vm", tags=("prod",))
    shop.memory.hold("web-vm", "VM is locked.")
    first = shop.back_up()
    assert first.state is JobState.PARTIAL
    shop.memory.let_go("web-vm")
    again = shop.finish(shop.controller.retry_backup(first, caller="admin"))
    assert [(one.vm_name, one.state) for one in again.vms] == [("web", JobState.SUCCEEDED)]


def test_named_vms_stay_first_and_are_no_question_of_rules(shop: World) -> None:
    shop.controller.create_workload("named", ["db-test"], rules=PROD)
    assert members(shop, "named") == (Member(vm_id="db-test-vm", vm_name="db-test"), WEB)
    choices = shop.controller.choices(["db"], PROD)
    assert [(choice.vm.name, choice.taken, choice.why) for choice in choices] == [
        ("db", True, "named"),
        ("db-test", False, "name=*-test"),
        ("web", True, "tag=prod"),
    ]


def test_a_workload_needs_a_vm_or_a_rule(shop: World) -> None:
    with pytest.raises(BadRequest, match="a VM or a rule"):
        shop.controller.create_workload("none", (), rules=Rules(exclude=PROD.exclude, disks=("x",)))


def test_a_change_counts_for_the_version_that_was_read(shop: World) -> None:
    before = shop.controller.workload("demo")
    changed = shop.controller.update_workload(replace(before, rules=Rules(include=(rule("cluster=*"),))))
    assert {member.vm_name for member in changed.members} == {"web", "db", "db-test"}
    with pytest.raises(ChangedMeanwhile):
        shop.controller.update_workload(before)
    shop.store.workloads.settle(replace(before, members=()))
    assert members(shop) == changed.members, "what was resolved for an older version is not written"


def test_each_workload_has_its_own_chain_of_a_vm(world: World) -> None:
    world.add(vm("web", disk("root")), workload="demo")
    world.controller.create_workload("second", ["web"])
    modes = []
    for name in ("demo", "second", "demo", "second", "demo"):
        job = world.finish(world.start_backup(workload=name))
        assert succeeded(job), job.failure
        [point] = [each for each in world.repository.points() if each.id == job.vms[0].point_id]
        modes.append((name, str(point.mode), str(point.images[0].changes)))
    assert modes == [
        ("demo", "full", "all"),
        ("second", "full", "all"),
        ("demo", "incremental", "tracked"),
        ("second", "incremental", "tracked"),
        ("demo", "incremental", "tracked"),
    ]
    [kept] = world.memory.checkpoints_made().values()
    newest = {each.workload_id: each for each in sorted(world.repository.points(), key=lambda each: each.created)}
    assert set(kept) == {each.checkpoint_id for each in newest.values()}


def test_a_vm_that_another_workload_works_on_is_left_alone_and_told(world: World) -> None:
    world.add(vm("web", disk("root")), workload="demo")
    world.memory.add_vm(vm("db", disk("pg")))
    world.controller.create_workload("both", ["web", "db"])
    world.mover.held = True
    first = world.start_backup(workload="demo")
    world.until(lambda: world.phase(first, "copying"))
    second = world.start_backup(workload="both")
    web, db = sorted(world.store.jobs.get(second.id).vms, key=lambda one: one.vm_name, reverse=True)
    assert (web.state, web.failure.code, db.state.over) == (JobState.FAILED, "vm-busy", False)
    assert first.id in web.failure.text
    world.mover.held = False
    assert succeeded(world.finish(first))
    done = world.finish(second)
    assert (done.state, done.failure.code) == (JobState.PARTIAL, "vm-busy")
    assert "was left alone" in world.texts(done)
    again = world.finish(world.controller.retry_backup(done, caller="admin"))
    assert [(one.vm_name, one.state) for one in again.vms] == [("web", JobState.SUCCEEDED)]
    world.assert_nothing_open()


def test_a_vm_that_joins_while_another_workload_works_on_it(shop: World) -> None:
    shop.controller.create_workload("other", ["db"])
    shop.mover.held = True
    first = shop.start_backup(workload="other")
    shop.until(lambda: shop.phase(first, "copying"))
    shop.memory.describe("db-vm", tags=("prod",))
    second = shop.start_backup()
    shop.until(lambda: len(shop.store.jobs.get(second.id).vms) == 2)
    shop.mover.held = False
    shop.finish(first)
    done = shop.finish(second)
    assert {one.vm_name: one.failure.code for one in done.vms} == {"web": "", "db": "vm-busy"}
