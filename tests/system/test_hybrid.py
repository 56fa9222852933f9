# SPDX-License-Identifier: GPL-3.0-or-later
"""Hybrid backups in the lab: restored and compared, with VMs that move meanwhile, failing merges, and deaths."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest
from ovirtsdk4 import types

from demo.deployment import BIN, Deployment, Lab, run, wait_until
from tests.system.jobs import end
from tests.system.manager import Manager
from tests.system.test_bad_days import nothing_left

pytestmark = [pytest.mark.lab, pytest.mark.xdist_group("system"), pytest.mark.timeout(300)]

VM = "hybrid"


@pytest.fixture(scope="module")
def workload(product: Deployment) -> str:
    """A workload of the VM, with a policy that asks for hybrid backups."""
    product.overkeep("workload", "create", VM, "--vm", VM)
    product.overkeep("policy", "create", VM, "--kind", "hybrid")
    product.overkeep("workload", "set-policy", VM, VM)
    return VM


@pytest.fixture
def slow(lab: Lab, product: Deployment, workload: str) -> Iterator[None]:
    """A full backup takes ten seconds and more, so that it is met on its way."""
    lab.block_io(VM, "vda", "write -P 0x65 16M 24M")
    product.overkeep("policy", "edit", workload, "--bandwidth", str(2 << 20))
    yield
    product.overkeep("policy", "edit", workload, "--bandwidth", "0")


@pytest.fixture(autouse=True)
def mended(lab: Lab, manager: Manager, workload: str) -> Iterator[None]:
    """No test leaves a fault, or the VM down."""
    if manager.vm(VM).status == types.VmStatus.DOWN:
        manager.start(VM)
    yield
    run([BIN / "ovirtlab", "fault", "clear", "--dir", lab.directory], expect=None)


def snapshots(manager: Manager, vm: str = VM) -> list[Any]:
    """The snapshots of a VM, but the active one."""
    found = manager.vm_service(vm).snapshots_service().list()
    return [snapshot for snapshot in found if snapshot.snapshot_type == types.SnapshotType.REGULAR]


def newest(product: Deployment) -> dict[str, Any]:
    points: list[dict[str, Any]] = product.overkeep("points", "--workload", VM, "--json").json()
    return points[-1]


def back_up(product: Deployment, *more: str) -> dict[str, Any]:
    """A backup that succeeds; the job."""
    job: dict[str, Any] = product.overkeep("backup", VM, *more, "--json").json()
    assert job["state"] == "succeeded"
    return job


def begin(product: Deployment, *more: str) -> str:
    """A backup that is copying now; the id of its job."""
    job: str = product.overkeep("backup", VM, *more, "--no-wait", "--json").json()["id"]

    def copying() -> bool:
        [vm] = product.overkeep("job", "show", job, "--json").json()["vms"]
        return any(disk["moved"] for disk in vm["disks"])

    wait_until(copying, what="the copy")
    return job


def assert_whole(product: Deployment, manager: Manager) -> None:
    """The newest point is hybrid, holds what the disks hold, and restores to it; nothing is left of the backup."""
    point = newest(product)
    assert point["backup_kind"] == "hybrid"
    nothing_left(product, manager)
    assert snapshots(manager) == []
    assert len(manager.checkpoints(VM)) == 1
    volumes = {disk.name: manager.volume(disk) for disk in manager.disks(VM)}
    for image in point["images"]:
        run(["qemu-img", "compare", "-q", "-U", product.image_path(point, image), volumes[image["name"]]])
    copy = f"hybrid-{point['id'][-8:]}"
    product.overkeep("restore", point["id"], "--vm", VM, "--name", copy)
    for mine, restored in zip(manager.disks(VM), manager.disks(copy), strict=True):
        run(["qemu-img", "compare", "-q", "-U", manager.volume(mine), manager.volume(restored)])
    manager.vm_service(copy).remove()
    wait_until(lambda: manager.vm(copy) is None, what=f"the removal of {copy}")


def test_full_and_incrementals_of_both_kinds(lab: Lab, product: Deployment, manager: Manager) -> None:
    lab.block_io(VM, "vda", "write -P 0x61 1M 8M")
    lab.block_io(VM, "vdb", "write -P 0x71 0 2M")
    back_up(product, "--full")
    assert {image["mode"] for image in newest(product)["images"]} == {"full"}
    assert_whole(product, manager)
    lab.block_io(VM, "vda", "write -P 0x62 3M 64k", "write -z 5M 1M")
    lab.block_io(VM, "vdb", "write -P 0x72 1M 1M")
    back_up(product)
    point = newest(product)
    changes = {image["name"]: image["changes"] for image in point["images"]}
    assert changes == {"hybrid_cow": "tracked", "hybrid_raw": "compared"}
    assert sum(image["covered"] for image in point["images"] if image["name"] == "hybrid_cow") == (1 << 20) + (64 << 10)
    assert_whole(product, manager)
    product.overkeep("policy", "edit", VM, "--kind", "legacy")
    lab.block_io(VM, "vda", "write -P 0x63 9M 64k")
    back_up(product)
    assert (newest(product)["backup_kind"], newest(product)["images"][0]["changes"]) == ("legacy", "tracked")
    product.overkeep("policy", "edit", VM, "--kind", "hybrid")
    lab.block_io(VM, "vda", "write -P 0x64 11M 64k")
    back_up(product)
    assert newest(product)["images"][0]["changes"] == "tracked"
    assert_whole(product, manager)


@pytest.mark.usefixtures("slow")
def test_a_vm_is_migrated_while_it_is_backed_up(lab: Lab, product: Deployment, manager: Manager) -> None:
    service = manager.vm_service(VM)
    before = service.get().host.id
    job = begin(product, "--full")
    lab.block_io(VM, "vda", "write -P 0x66 40M 1M")
    service.migrate()

    def moved() -> bool:
        seen = service.get()
        return bool(seen.status == types.VmStatus.UP and seen.host.id != before)

    wait_until(moved, what="the migration")
    assert product.overkeep("job", "show", job, "--json").json()["state"] == "running", "it was during the copy"
    assert end(product, job) == "succeeded"
    assert snapshots(manager) == []
    product.overkeep("policy", "edit", VM, "--bandwidth", "0")
    back_up(product)  # what was written meanwhile was tracked
    assert newest(product)["images"][0]["changes"] == "tracked"
    assert_whole(product, manager)


@pytest.mark.slow
@pytest.mark.usefixtures("slow")
def test_a_vm_that_is_down_is_started_while_it_is_backed_up(lab: Lab, product: Deployment, manager: Manager) -> None:
    manager.stop(VM)
    job = begin(product, "--full")
    manager.start(VM)
    lab.block_io(VM, "vda", "write -P 0x68 41M 1M")
    assert end(product, job) == "succeeded"
    assert newest(product)["consistency"] == "offline"
    product.overkeep("policy", "edit", VM, "--bandwidth", "0")
    back_up(product)
    assert_whole(product, manager)


def test_a_snapshot_that_the_manager_does_not_merge(lab: Lab, product: Deployment, manager: Manager) -> None:
    lab.fault("act-refused", act="merge", vm=VM, count="2")  # of each of the two disks
    job = back_up(product)
    assert "asked once more, it did" in product.overkeep("job", "show", job["id"]).text
    assert_whole(product, manager)
    lab.fault("act-refused", act="merge", vm=VM)
    job = back_up(product)
    told = product.overkeep("job", "show", job["id"]).text
    assert "could not be removed" in told
    [left] = snapshots(manager)
    assert left.id in told
    nothing_left(product, manager)
    run([BIN / "ovirtlab", "fault", "clear", "--dir", lab.directory])  # which merges what was left, as an administrator
    wait_until(lambda: snapshots(manager) == [], what="the merge")
    back_up(product)
    assert_whole(product, manager)


@pytest.mark.slow
@pytest.mark.parametrize("down", [False, True], ids=["up", "down"])
def test_bitmaps_that_are_lost(lab: Lab, product: Deployment, manager: Manager, down: bool) -> None:
    """The Manager finds out only when a disk is opened; the backup is ended, and the disks are compared."""
    lab.block_io(VM, "vda", "write -P 0x69 2M 1M")
    back_up(product)
    lab.block_io(VM, "vda", "write -P 0x6a 2M 64k")
    if down:
        manager.stop(VM)
    lab.fault("bitmap-lose", vm=VM)
    back_up(product)
    assert {image["changes"] for image in newest(product)["images"]} == {"compared"}
    assert_whole(product, manager)


@pytest.mark.slow
def test_a_controller_that_is_killed_during_a_hybrid_backup(lab: Lab, product: Deployment, manager: Manager) -> None:
    for seconds in (0.5, 1.5, 2.5):
        lab.block_io(VM, "vda", "write -P 0x6b 16M 12M")
        job = product.overkeep("backup", VM, "--full", "--no-wait", "--json").json()["id"]
        time.sleep(seconds)  # the instant is what is tried out
        product.services["controller"].stop(signal.SIGKILL)
        product.start_controller()
        assert end(product, job) == "succeeded"
        wait_until(lambda: manager.open_things() == [], what="the end of everything that was open", seconds=60)
        assert snapshots(manager) == []
    assert_whole(product, manager)


@pytest.mark.slow
@pytest.mark.usefixtures("slow")
def test_a_cancelled_hybrid_backup_leaves_no_snapshot(lab: Lab, product: Deployment, manager: Manager) -> None:
    before = newest(product)["id"]
    job = begin(product, "--full")
    product.overkeep("job", "cancel", job)
    assert newest(product)["id"] == before
    nothing_left(product, manager)
    assert snapshots(manager) == []
    assert len(manager.checkpoints(VM)) == 1
