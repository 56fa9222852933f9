# SPDX-License-Identifier: GPL-3.0-or-later
"""How consistent points are, with real guests whose file systems are frozen, and what becomes of the guests."""

from __future__ import annotations

import datetime as dt
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from demo.deployment import BIN, CommandError, Deployment, Lab, deployed, run, wait_until
from tests.system.conftest import running_lab, short_directory
from tests.system.manager import Manager

pytestmark = [pytest.mark.lab, pytest.mark.xdist_group("guests"), pytest.mark.timeout(600)]

FROZEN, THAWED = 10767, 10768  # codes of the Manager's events
TIME_SCALE = 8  # seconds of the lab's Manager in a real one (guests.yaml)
HELD_UP = 20  # seconds for which the Manager does not take a backup


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with short_directory() as directory:
        yield directory


@pytest.fixture(scope="module")
def lab(folder: Path) -> Iterator[Lab]:
    """A lab with guests."""
    with running_lab(folder / "lab", "guests.yaml") as lab:
        yield lab


@pytest.fixture(scope="module")
def product(lab: Lab, folder: Path) -> Iterator[Deployment]:
    with deployed(lab, folder / "product") as deployment:
        yield deployment


@pytest.fixture(scope="module")
def manager(lab: Lab) -> Manager:
    return Manager(lab)


@pytest.fixture(autouse=True)
def mended(lab: Lab) -> Iterator[None]:
    """No test leaves a fault."""
    yield
    run([BIN / "ovirtlab", "fault", "clear", "--dir", lab.directory], expect=None)


def newest(product: Deployment, workload: str, vm: str) -> dict[str, Any]:
    points = product.overkeep("points", "--workload", workload, "--vm", vm, "--json").json()
    return dict(points[-1])


def must_be_recovered(product: Deployment, point: dict[str, Any]) -> bool:
    """Whether the file system in the image was being written to, as after a power cut."""
    raw = product.directory / f"{point['id']}.raw"
    run(["qemu-img", "convert", "-O", "raw", product.image_path(point, point["images"][0]), raw])
    try:
        return "needs_recovery" in run(["dumpe2fs", "-h", raw]).text
    finally:
        raw.unlink()


def write(lab: Lab, vm: str, text: str) -> str:
    """Write inside a guest, which holds until it is thawed, and read it back."""
    return lab.guest(vm, f"echo {text} > /root/said && sync && cat /root/said", timeout=60).strip()


def events(manager: Manager, vm: str, code: int) -> list[dt.datetime]:
    """When the Manager wrote an event of this code about a VM, oldest first."""
    vm_id = manager.vm(vm).id
    found = manager.system.events_service().list(max=1000)
    return sorted(event.time for event in found if event.code == code and event.vm is not None and event.vm.id == vm_id)


def test_the_level_wanted_is_the_level_of_the_data(lab: Lab, product: Deployment, manager: Manager) -> None:
    product.overkeep(
        "workload", "create", "files", "--vm", "app", "--consistency", "file-system", "--unreached", "refuse"
    )
    assert write(lab, "app", "first") == "first"
    for mode in ("full", "incremental"):
        product.overkeep("backup", "files")
        point = newest(product, "files", "app")
        assert (point["mode"], point["consistency"], point["consistency_wanted"]) == (
            mode,
            "file-system",
            "file-system",
        )
        assert not must_be_recovered(product, point)
        assert write(lab, "app", f"after-{mode}") == f"after-{mode}", "the guest goes on"
    assert events(manager, "app", FROZEN) == [], "its host froze it, nobody else"
    assert "file-system" in product.overkeep("points", "--workload", "files").text
    assert manager.open_things() == []


def test_a_guest_without_an_agent_is_refused_or_backed_up_as_it_is(
    lab: Lab, product: Deployment, manager: Manager
) -> None:
    product.overkeep(
        "workload", "create", "mute", "--vm", "silent", "--consistency", "file-system", "--unreached", "refuse"
    )
    with pytest.raises(CommandError, match="Guest agent non responsive"):
        product.overkeep("backup", "mute")
    assert product.overkeep("points", "--workload", "mute", "--json").json() == []
    assert manager.open_things() == []
    product.overkeep("workload", "change", "mute", "--unreached", "warn")
    assert write(lab, "silent", "written") == "written"
    for mode in ("full", "incremental"):
        product.overkeep("backup", "mute")
        point = newest(product, "mute", "silent")
        assert (point["mode"], point["consistency"]) == (mode, "crash")
    told = product.overkeep("events", "--kind", "consistency.lower", "--json").json()
    assert [(event["level"], event["vm_name"]) for event in told] == [("warning", "silent")] * 2
    assert manager.open_things() == []


def test_a_group_begins_in_one_moment_and_goes_on(lab: Lab, product: Deployment, manager: Manager) -> None:
    product.overkeep(
        *("workload", "create", "pair", "--vm", "app", "--vm", "store", "--consistency", "group"),
        *("--unreached", "refuse", "--frozen-at-most", "60"),
    )
    for mode in ("full", "incremental"):
        for vm in ("app", "store"):
            assert write(lab, vm, f"before-{mode}") == f"before-{mode}"
        product.overkeep("backup", "pair")
        for vm in ("app", "store"):
            point = newest(product, "pair", vm)
            assert (point["mode"], point["consistency"]) == (mode, "group")
            assert not must_be_recovered(product, point)
            assert write(lab, vm, f"after-{mode}") == f"after-{mode}", "the guest goes on"
    for vm in ("app", "store"):
        assert len(events(manager, vm, FROZEN)) >= 2
        assert events(manager, vm, THAWED)[-1] >= events(manager, vm, FROZEN)[-1]
    assert manager.open_things() == []


def test_when_the_manager_is_slow_all_go_on_in_time(lab: Lab, product: Deployment, manager: Manager) -> None:
    """The Manager does not take the backups; guests are frozen for three seconds at most, and the run is refused."""
    product.overkeep(
        *("workload", "create", "slow", "--vm", "app", "--vm", "store", "--consistency", "group"),
        *("--unreached", "refuse", "--frozen-at-most", "3"),
    )
    before = {vm: len(events(manager, vm, FROZEN)) for vm in ("app", "store")}
    lab.fault("call-hang", path="vms/*/backups", method="POST", seconds=str(HELD_UP), count="2")
    with pytest.raises(CommandError, match="3 s after the guests were frozen"):
        product.overkeep("backup", "slow")
    for vm in ("app", "store"):
        [frozen] = events(manager, vm, FROZEN)[before[vm] :]
        thawed = min(time for time in events(manager, vm, THAWED) if time >= frozen)
        assert (thawed - frozen) / TIME_SCALE < dt.timedelta(seconds=HELD_UP / 2), "long before the Manager answered"
        assert write(lab, vm, "on") == "on"
    assert product.overkeep("points", "--workload", "slow", "--json").json() == []
    assert manager.open_things() == []


def test_a_controller_that_is_killed_between_freeze_and_thaw(lab: Lab, product: Deployment, manager: Manager) -> None:
    """The guests are frozen when it is killed, and thawed as soon as the next one is there."""
    product.overkeep(
        *("workload", "create", "killed", "--vm", "app", "--vm", "store", "--consistency", "group"),
        *("--unreached", "accept", "--frozen-at-most", "120"),
    )
    count = {vm: (len(events(manager, vm, FROZEN)), len(events(manager, vm, THAWED))) for vm in ("app", "store")}
    lab.fault("call-hang", path="vms/*/backups", method="POST", seconds=str(3 * HELD_UP), count="2")
    job = product.overkeep("backup", "killed", "--no-wait", "--json").json()["id"]
    wait_until(
        lambda: all(len(events(manager, vm, FROZEN)) > count[vm][0] for vm in count), what="the freeze", seconds=60
    )
    product.services["controller"].stop(signal.SIGKILL)
    assert all(len(events(manager, vm, THAWED)) == count[vm][1] for vm in count), "they are frozen, and nobody is there"
    product.start_controller()
    wait_until(
        lambda: all(len(events(manager, vm, THAWED)) > count[vm][1] for vm in count), what="the thaw", seconds=15
    )
    for vm in count:
        assert write(lab, vm, "on") == "on"
    product.overkeep("job", "follow", job)
    levels = {newest(product, "killed", vm)["consistency"] for vm in count}
    assert "group" not in levels
    told = product.overkeep("events", "--job", job, "--kind", "consistency.lower", "--json").json()
    assert {event["level"] for event in told} == {"info"}
    assert "restarted while guests were frozen" in told[0]["text"]
    assert manager.open_things() == []
