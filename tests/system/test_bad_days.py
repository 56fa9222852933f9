# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes wrong: one clear sentence, a status, and nothing left behind in the Manager or on the target."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo.deployment import BIN, Deployment, Finished, Lab, deployed, run, unmount, wait_until
from overkeep.units import MIB
from tests.system.forwarder import Forwarder
from tests.system.jobs import end
from tests.system.manager import Manager

pytestmark = [pytest.mark.lab, pytest.mark.xdist_group("system"), pytest.mark.timeout(300)]


def sentence(finished: Finished) -> str:
    """What the user saw; it is one short piece of prose and no traceback."""
    text = finished.errors.strip()
    assert text, finished.text
    assert "Traceback" not in text
    assert "object at 0x" not in text
    return " ".join(text.split())


def points_of(product: Deployment, vm: str) -> list[str]:
    """Ids of the restore points of a VM."""
    return [p["id"] for p in product.overkeep("points", "--json").json() if p["vm_name"] == vm]


def partial_files(product: Deployment) -> list[Path]:
    """What an unfinished copy or draft would leave on the target."""
    found = product.repository.rglob("*")
    return [path for path in found if path.name.endswith((".partial", ".tmp")) or path.name == "draft.json"]


def nothing_left(product: Deployment, manager: Manager) -> None:
    """Neither in the Manager nor on the target."""
    assert manager.open_things() == []
    assert partial_files(product) == []


def test_a_vm_that_does_not_exist(product: Deployment) -> None:
    finished = product.overkeep("workload", "create", "ghost", "--vm", "nobody", expect=None)
    assert finished.status != 0
    assert "nobody" in sentence(finished)


def test_a_workload_that_does_not_exist(product: Deployment) -> None:
    finished = product.overkeep("backup", "no-such", expect=None)
    assert finished.status != 0
    assert "no-such" in sentence(finished)


def test_a_vm_in_another_programs_backup(product: Deployment, manager: Manager) -> None:
    product.overkeep("workload", "create", "busy", "--vm", "busy")
    with manager.foreign_backup("busy") as foreign:
        finished = product.overkeep("backup", "busy", expect=None)
        assert finished.status != 0
        assert "busy" in sentence(finished)
        phase = manager.vm_service("busy").backups_service().backup_service(foreign).get().phase
        assert str(phase) == "ready", "the other program's backup is not ours to touch"
    assert points_of(product, "busy") == []
    nothing_left(product, manager)


def test_a_mover_that_is_down(product: Deployment, manager: Manager) -> None:
    product.overkeep("workload", "create", "lonely", "--vm", "lonely")
    product.services["mover-host2"].stop()
    try:
        finished = product.overkeep("backup", "lonely", expect=None)
    finally:
        product.start_mover("host2")
    assert finished.status != 0
    assert "host2" in sentence(finished)
    assert points_of(product, "lonely") == []
    nothing_left(product, manager)
    wait_until(lambda: all(m["ok"] for m in product.overkeep("movers", "--json").json()), what="the mover's answer")
    product.overkeep("backup", "lonely")


def test_a_token_that_is_no_longer_good(product: Deployment) -> None:
    session = json.loads(Path(product.session["OVERKEEP_SESSION"]).read_text())
    key = next(name for name in session if "token" in name)
    stale = product.directory / "stale.json"
    stale.touch(mode=0o600)
    stale.write_text(json.dumps({**session, key: "x" * 40}))
    finished = run([BIN / "overkeep", "workload", "list"], expect=None, env={"OVERKEEP_SESSION": str(stale)})
    assert finished.status == 3
    assert "overkeep login" in sentence(finished)


def test_a_controller_that_is_down(product: Deployment) -> None:
    session = json.loads(Path(product.session["OVERKEEP_SESSION"]).read_text())
    text = json.dumps(session).replace(product.controller_url, "https://127.0.0.1:1")
    elsewhere = product.directory / "elsewhere.json"
    elsewhere.touch(mode=0o600)
    elsewhere.write_text(text)
    finished = run([BIN / "overkeep", "job", "list"], expect=None, env={"OVERKEEP_SESSION": str(elsewhere)})
    assert finished.status == 4
    assert "127.0.0.1:1" in sentence(finished)


@pytest.fixture(scope="module")
def filled(lab: Lab) -> Lab:
    """The lab with 6 GiB in the disk of VM `large`, so that a copy takes seconds and can be met on its way."""
    lab.block_io("large", "vda", *(f"write -P {piece + 1} {piece * 128}M 128M" for piece in range(48)))
    return lab


@pytest.fixture
def large(filled: Lab, product: Deployment) -> Iterator[str]:
    """A workload of that VM, made for the test and removed after it."""
    product.overkeep("workload", "create", "large", "--vm", "large")
    yield "large"
    product.overkeep("workload", "delete", "large", expect=None)


def _copying(product: Deployment) -> str | None:
    """The id of the job that is copying now, once some bytes of it have been moved."""
    for job in product.overkeep("job", "list", "--json").json():
        moved = sum(disk["moved"] for vm in job["vms"] for disk in vm["disks"])
        if job["state"] == "running" and moved > 64 * MIB:
            return str(job["id"])
    return None


def test_control_c_in_the_middle_of_a_copy(product: Deployment, manager: Manager, large: str) -> None:
    command = [str(BIN / "overkeep"), "backup", large]
    environment = {**os.environ, **product.session}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as child:
        wait_until(lambda: _copying(product), what="a copy on its way", seconds=60)
        child.send_signal(signal.SIGINT)
        text, errors = child.communicate(timeout=120)
    assert child.returncode == 130, errors + text
    assert "cancel" in sentence(Finished(child.returncode, text, errors)).lower()
    assert points_of(product, "large") == []
    nothing_left(product, manager)
    assert manager.checkpoints("large") == [], "a checkpoint without data would be a trap for the next backup"


def test_a_controller_killed_in_the_middle_of_a_copy(product: Deployment, manager: Manager, large: str) -> None:
    job = product.overkeep("backup", large, "--no-wait", "--json").json()["id"]
    wait_until(lambda: _copying(product), what="a copy on its way", seconds=60)
    product.services["controller"].stop(signal.SIGKILL)
    product.start_controller()
    state = end(product, job, seconds=180)
    assert state in ("succeeded", "failed")
    assert len(points_of(product, "large")) == (1 if state == "succeeded" else 0)
    nothing_left(product, manager)


def test_a_manager_that_cannot_be_reached(lab: Lab, lab_directory: Path, manager: Manager) -> None:
    url = lab.facts["engine_url"]
    host, _, port = url.removeprefix("https://").partition("/")[0].partition(":")
    with Forwarder(host, int(port)) as forwarder:
        near = url.replace(f"{host}:{port}", f"{host}:{forwarder.port}")
        with deployed(lab, lab_directory / "cut-off", engine_url=near) as product:
            product.overkeep("workload", "create", "cut", "--vm", "busy")
            forwarder.cut()
            finished = product.overkeep("backup", "cut", expect=None, timeout=240)
    assert finished.status != 0
    assert "Manager" in sentence(finished)
    assert manager.open_things() == []


def test_a_target_that_is_full(lab: Lab, lab_directory: Path, manager: Manager) -> None:
    with deployed(lab, lab_directory / "tiny", export="tiny") as product:
        lab.block_io("busy", "vda", "write -P 0x77 0 48M")
        product.overkeep("workload", "create", "tiny", "--vm", "busy")
        finished = product.overkeep("backup", "tiny", expect=None)
        assert finished.status != 0
        assert "no room left" in sentence(finished)
        assert points_of(product, "busy") == []
        nothing_left(product, manager)


def test_a_target_that_is_read_only_still_restores(
    lab: Lab, lab_directory: Path, product: Deployment, manager: Manager
) -> None:
    lab.block_io("archived", "vda", "write -P 0x41 0 8M")
    product.overkeep("workload", "create", "archived", "--vm", "archived")
    product.overkeep("backup", "archived")
    with deployed(lab, lab_directory / "readonly", export="readonly") as reader:
        reader.overkeep("workload", "create", "archived", "--vm", "archived")
        finished = reader.overkeep("backup", "archived", expect=None)
        assert finished.status != 0
        assert "does not allow writing" in sentence(finished)
        (point,) = points_of(reader, "archived")
        reader.overkeep("restore", point, "--vm", "archived", "--name", "from-read-only")
    (original,) = manager.disks("archived")
    (restored,) = manager.disks("from-read-only")
    run(["qemu-img", "compare", "-q", "-U", manager.volume(restored), manager.volume(original)])
    nothing_left(product, manager)


def test_a_mover_without_the_mount_refuses(lab: Lab, product: Deployment, manager: Manager) -> None:
    """The folder is there, the mount is not, and mounting does nothing: not a byte is written into the bare folder."""
    product.services["mover-host2"].stop()
    bare = product.directory / "mnt" / "host2"
    settings = product.directory / "host2" / "mover.toml"
    kept = settings.read_text()
    unmount(product.directory / "mnt", only="host2")
    lines = ['mount_command = ["true"]' if x.startswith("mount_command") else x for x in kept.splitlines()]
    settings.write_text("\n".join(lines))
    try:
        product.start_mover("host2")
        product.overkeep("workload", "create", "bare", "--vm", "bare")
        finished = product.overkeep("backup", "bare", expect=None)
        assert finished.status != 0
        assert "mount" in sentence(finished)
        assert list(bare.iterdir()) == []
    finally:
        product.services["mover-host2"].stop()
        settings.write_text(kept)
        product.start_mover("host2")
    assert manager.open_things() == []
