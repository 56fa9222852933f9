# SPDX-License-Identifier: GPL-3.0-or-later
"""Changes that the Manager tracked and that turn out to be worthless: the user gets a good backup, and is told why.

Nothing shows it before: the Manager goes on listing the checkpoint. Of a VM that runs it refuses the backup and forgets
all checkpoints; of one that is down the backup is ready, and the disk cannot be opened.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from demo.deployment import Deployment, Lab, run, wait_until
from tests.system.manager import Manager

pytestmark = [pytest.mark.lab, pytest.mark.xdist_group("system"), pytest.mark.timeout(300)]

VM = "fragile"
Harm = Callable[[Lab, Manager], None]


def lose(lab: Lab, manager: Manager) -> None:
    lab.fault("bitmap-lose", vm=VM)


def lose_one(lab: Lab, manager: Manager) -> None:
    lab.fault("bitmap-lose", vm=VM, disk="fragile_two")


def break_(lab: Lab, manager: Manager) -> None:
    lab.fault("bitmap-break", vm=VM)


def crash(lab: Lab, manager: Manager) -> None:
    """QEMU dies, and with it what was written since the bitmaps were last stored."""
    lab.fault("vm-kill", vm=VM)
    manager.start(VM)


@pytest.fixture
def base(lab: Lab, product: Deployment, manager: Manager) -> str:
    """The VM runs, has a restore point, and was written to since then. The id of the point."""
    if manager.vm(VM).status.value == "down":
        manager.start(VM)
    if not any(w["name"] == VM for w in product.overkeep("workload", "list", "--json").json()):
        product.overkeep("workload", "create", VM, "--vm", VM)
    lab.block_io(VM, "vda", "write -P 0x41 1M 6M")
    lab.block_io(VM, "vdb", "write -P 0x51 1M 6M")
    product.overkeep("backup", VM)
    lab.block_io(VM, "vda", "write -P 0x42 2M 64k", "write -P 0x43 20M 1M")
    lab.block_io(VM, "vdb", "write -P 0x52 3M 64k", "write -z 4M 1M")
    return str(newest(product)["id"])


@pytest.mark.parametrize(
    "harm", [crash, *(pytest.param(each, marks=pytest.mark.slow) for each in (lose, lose_one, break_))]
)
def test_of_a_vm_that_runs(lab: Lab, product: Deployment, manager: Manager, base: str, harm: Harm) -> None:
    harm(lab, manager)
    job = back_up(product)
    assert "the Manager failed the backup from its checkpoint" in reasons(product)
    assert "Full backup is now needed" in texts(product, job)
    assert_good(product, manager, base)


@pytest.mark.parametrize("harm", [break_, *(pytest.param(each, marks=pytest.mark.slow) for each in (lose, lose_one))])
def test_of_a_vm_that_is_down(lab: Lab, product: Deployment, manager: Manager, base: str, harm: Harm) -> None:
    manager.stop(VM)
    harm(lab, manager)
    job = back_up(product)
    assert "a disk could not be opened with the changes that the Manager tracked" in reasons(product)
    assert "failed to create a signed image ticket" in texts(product, job)
    assert_good(product, manager, base)


def back_up(product: Deployment) -> str:
    """A job that succeeds; its id."""
    finished = product.overkeep("backup", VM, "--json").json()
    assert finished["state"] == "succeeded"
    return str(finished["id"])


def assert_good(product: Deployment, manager: Manager, base: str) -> None:
    """The newest point was made by comparing, holds what the disks hold, and is a base for tracked changes again."""
    point = newest(product)
    assert point["id"] != base
    assert {image["changes"] for image in point["images"]} == {"compared"}
    assert len(manager.checkpoints(VM)) == 1
    assert manager.open_things() == []
    assert_holds(product, manager, point)
    copy = f"copy-{point['id'][-8:]}"
    product.overkeep("restore", point["id"], "--vm", VM, "--name", copy)
    for mine, restored in zip(manager.disks(VM), manager.disks(copy), strict=True):
        run(["qemu-img", "compare", "-q", "-U", manager.volume(mine), manager.volume(restored)])
    manager.vm_service(copy).remove()
    wait_until(lambda: manager.vm(copy) is None, what=f"the removal of {copy}")
    back_up(product)
    after = newest(product)
    assert {image["changes"] for image in after["images"]} == {"tracked"}
    assert_holds(product, manager, after)


def assert_holds(product: Deployment, manager: Manager, point: dict[str, Any]) -> None:
    volumes = {disk.name: manager.volume(disk) for disk in manager.disks(VM)}
    for image in point["images"]:
        run(["qemu-img", "compare", "-q", "-U", product.image_path(point, image), volumes[image["name"]]])


def newest(product: Deployment) -> dict[str, Any]:
    points: list[dict[str, Any]] = product.overkeep("points", "--workload", VM, "--json").json()
    return points[-1]


def reasons(product: Deployment) -> str:
    return " ".join(image["reason"] for image in newest(product)["images"])


def texts(product: Deployment, job: str) -> str:
    """What the user is told of a job."""
    return product.overkeep("job", "show", job).text
