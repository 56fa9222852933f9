# SPDX-License-Identifier: GPL-3.0-or-later
"""The SDK's own example programs, as they are, against the engine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ovirt_imageio import client
from ovirtsdk4 import types

ROOT = Path(__file__).parents[3]


@pytest.fixture
def examples() -> Path:
    """The folder of the examples; `make setup` fetches them."""
    found = sorted(ROOT.glob(".cache/sdk-examples-*/backup_vm.py"))
    if not found:
        pytest.skip("the SDK's example programs are not here: run `make setup`")
    return found[-1].parent


def configured(world: Any, home: Path) -> dict[str, str]:
    """Write a configuration that names the engine; return the environment in which programs find it."""
    (home / ".config").mkdir(exist_ok=True)
    (home / ".config/ovirt.conf").write_text(
        f"[lab]\nengine_url = {world.url}\nusername = admin@internal\npassword = secret\ncafile = {world.daemon.ca}\n"
    )
    return {**os.environ, "HOME": str(home)}


def run(world: Any, home: Path, program: Path, *arguments: str) -> str:
    """Run an example with a configuration that names the engine; return what it printed."""
    argv = [sys.executable, str(program), "-c", "lab", *arguments]
    environment = configured(world, home)
    done = subprocess.run(argv, cwd=home, env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@contextmanager
def running(world: Any, home: Path, program: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """An example that runs until it is interrupted; it must end well then."""
    argv = [sys.executable, "-u", str(program), "-c", "lab", *arguments]
    log = home / "said"
    with log.open("w") as said:
        process = subprocess.Popen(argv, cwd=home, env=configured(world, home), stdout=said, stderr=said, text=True)
        try:
            yield process
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0, log.read_text()
        finally:
            process.kill()
            process.wait()


def raw(image: Path, to: Path) -> bytes:
    subprocess.run(["qemu-img", "convert", "-O", "raw", image, to], check=True)
    return to.read_bytes()


def test_backup_vm(world: Any, examples: Path, tmp_path: Path) -> None:
    """Full, write, incremental; the chain of files it leaves is the disk."""
    disk = world.add_disk()
    vm = world.add_vm(disk)
    program, folder = examples / "backup_vm.py", tmp_path / "backups"
    folder.mkdir()
    world.write(vm, "write -P 1 0 1M")
    said = run(world, tmp_path, program, "full", "--backup-dir", str(folder), vm.id)
    assert "completed successfully" in said
    checkpoint = world.checkpoints(vm).list()[-1].id
    world.write(vm, "write -P 2 2M 64k")
    options = ["--backup-dir", str(folder), "--from-checkpoint-uuid", checkpoint]
    said = run(world, tmp_path, program, "incremental", *options, vm.id)
    assert "completed successfully" in said
    assert "Incremental backup not available" not in said
    world.stop_vm(vm)
    newest = next(folder.glob("*.incremental.qcow2"))
    assert raw(newest, tmp_path / "restored") == raw(disk.path, tmp_path / "now")
    assert "removed successfully" in run(world, tmp_path, examples / "checkpoints.py", "remove", vm.id, checkpoint)


def test_upload_and_download(world: Any, examples: Path, tmp_path: Path) -> None:
    source = tmp_path / "image.raw"
    source.write_bytes(bytes(range(256)) * 4096)
    options = ["--sd-name", "store", "--disk-format", "qcow2", "--disk-sparse", str(source)]
    assert "Upload completed successfully" in run(world, tmp_path, examples / "upload_disk.py", *options)
    disk_id = next(iter(world.state.disks))
    back = tmp_path / "back.qcow2"
    said = run(world, tmp_path, examples / "download_disk.py", "--format", "qcow2", disk_id, str(back))
    assert "Download completed successfully" in said
    assert raw(back, tmp_path / "back.raw") == source.read_bytes()


def test_backup_vm_by_hybrid_backups(world: Any, examples: Path, tmp_path: Path) -> None:
    """The same program where the engine makes hybrid backups: nothing is left of its snapshots."""
    world.state.settings.use_hybrid_backup = True
    disk = world.add_disk()
    vm = world.add_vm(disk)
    program, folder = examples / "backup_vm.py", tmp_path / "backups"
    folder.mkdir()
    world.write(vm, "write -P 1 0 1M")
    run(world, tmp_path, program, "full", "--backup-dir", str(folder), vm.id)
    checkpoint = world.checkpoints(vm).list()[-1].id
    world.write(vm, "write -P 2 1M 1M")
    options = ["--backup-dir", str(folder), "--from-checkpoint-uuid", checkpoint, vm.id]
    run(world, tmp_path, program, "incremental", *options)
    assert disk.volumes == []
    assert not world.state.snapshots
    world.stop_vm(vm)
    newest = next(folder.glob("*.incremental.qcow2"))
    assert raw(newest, tmp_path / "restored") == raw(disk.path, tmp_path / "now")


def test_download_disk_snapshot(world: Any, examples: Path, tmp_path: Path) -> None:
    """The lower layer whole, the upper one alone over it: together they are the disk."""
    disk = world.add_disk()
    vm = world.add_vm(disk)
    snapshots = world.system.vms_service().vm_service(vm.id).snapshots_service()
    for number in range(2):
        world.write(vm, f"write -P {number + 1} {number}M 1M")
        snapshots.add(types.Snapshot(description=str(number), persist_memorystate=False))
        world.until(lambda number=number: len(disk.volumes) == number + 1 and disk.status == "ok")
    listed = json.loads(run(world, tmp_path, examples / "list_disk_snapshots.py", disk.id))
    assert [item["id"] for item in listed] == [*disk.volumes, disk.image_id]
    program, lower, upper = examples / "download_disk_snapshot.py", tmp_path / "lower.qcow2", tmp_path / "upper.qcow2"
    run(world, tmp_path, program, "store", disk.volumes[0], str(lower))
    run(world, tmp_path, program, "store", disk.volumes[1], str(upper), "--backing-file", str(lower))
    assert raw(lower, tmp_path / "one")[: 2 << 20] == b"\1" * (1 << 20) + bytes(1 << 20)
    world.stop_vm(vm)
    assert raw(upper, tmp_path / "both") == raw(disk.path, tmp_path / "now")


def test_checksum_disk(world: Any, examples: Path, tmp_path: Path) -> None:
    """The daemon reads the disk and sums it up, to what the client's library makes of the file itself."""
    disk = world.add_disk(size=5 << 20)
    vm = world.add_vm(disk)
    world.write(vm, "write -P 7 4M 1M")
    world.stop_vm(vm)
    said = json.loads(run(world, tmp_path, examples / "checksum_disk.py", disk.id))
    assert said == client.checksum(str(disk.path))
    raw(disk.path, tmp_path / "other")
    with (tmp_path / "other").open("r+b") as file:
        file.write(b"x")
    assert said["checksum"] != client.checksum(str(tmp_path / "other"))["checksum"]
    world.until(lambda: disk.status == "ok")


def test_image_transfer_runs_until_it_is_interrupted(world: Any, examples: Path, tmp_path: Path) -> None:
    disk = world.add_disk()
    vm = world.add_vm(disk)
    world.write(vm, "write -P 5 0 1M")
    world.stop_vm(vm)
    program = examples / "image_transfer.py"
    with running(world, tmp_path, program, "download", disk.id, "--read-delay", "1"):
        world.until(lambda: [item.transferred for item in world.state.transfers.values()] > [0])
        (transfer,) = world.state.transfers.values()
        assert transfer.phase == "transferring"
        assert disk.status == "locked"
    assert transfer.phase == "finished_success"
    assert disk.status == "ok"


def test_cancel_transfer(world: Any, examples: Path, tmp_path: Path) -> None:
    """An upload that is paused is given up, and its disk with it."""
    disk = world.add_disk()
    upload = world.start_transfer(disk=types.Disk(id=disk.id), direction=types.ImageTransferDirection.UPLOAD)
    world.transfer(upload.id).pause()
    world.wait_transfer(upload.id, "paused_user")
    (tmp_path / "password").write_text("secret\n")
    argv = ["--engine-url", world.url, "--username", "admin@internal", "--password-file", str(tmp_path / "password")]
    program = examples / "cancel_transfer.py"
    done = subprocess.run(
        [sys.executable, str(program), *argv, upload.id], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "Transfer cancelled\n", done.stderr
    assert world.wait_transfer(upload.id, "").phase.value == "finished_failure"
    assert disk.id not in world.state.disks
    assert not disk.path.exists()
