# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole backups with real QEMU and real imageio: what is downloaded is what the VM had."""

from __future__ import annotations

import ssl
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from ovirt_imageio import client
from ovirtsdk4 import types


def download(world: Any, backup: types.Backup, disk: Any, to: Path, *, base: Path | None = None) -> None:
    """Read one disk of a backup into a qcow2, an increment when there is a base."""
    transfer = world.start_transfer(disk=types.Disk(id=disk.id), backup=types.Backup(id=backup.id))
    extra = {"incremental": True, "backing_file": base.name, "backing_format": "qcow2"} if base else {}
    client.download(transfer.transfer_url, str(to), str(world.daemon.ca), **extra)
    finished = world.finalize_transfer(transfer)
    assert finished.phase.value == "finished_success"
    assert finished.transfer_url is None


def put(world: Any, transfer: types.ImageTransfer, content: bytes) -> None:
    """Send the bytes of a file as they are; the client of imageio would send what a guest sees."""
    context = ssl.create_default_context(cafile=world.daemon.ca)
    request = urllib.request.Request(transfer.transfer_url, content, method="PUT")
    with urllib.request.urlopen(request, context=context, timeout=20) as answer:
        assert answer.status == 200


def export(source: Path, to: Path) -> bytes:
    subprocess.run(["qemu-img", "convert", "-O", "raw", source, to], check=True)
    return to.read_bytes()


def modes(world: Any, vm: Any, backup: types.Backup) -> dict[str, str | None]:
    disks = world.backups(vm).backup_service(backup.id).disks_service().list()
    return {disk.id: disk.backup_mode.value if disk.backup_mode else None for disk in disks}


def test_full_and_increment_of_a_running_vm(world: Any, tmp_path: Path) -> None:
    """A raw disk and a disk that came later are read whole in an increment; the rest is only what was written."""
    disk, raw = world.add_disk(), world.add_disk(fmt="raw")
    vm = world.add_vm(disk, raw)
    world.write(vm, "write -P 1 1M 1M")
    full = world.start_backup(vm, disk, raw, description="nightly")
    assert full.to_checkpoint_id
    assert full.host.id == world.host.id
    assert modes(world, vm, full) == {disk.id: "full", raw.id: "full"}
    world.write(vm, "write -P 2 2M 64k")  # after the point in time: not in this backup
    download(world, full, disk, tmp_path / "full.qcow2")
    assert world.finalize_backup(vm, full).phase.value == "succeeded"
    assert modes(world, vm, full) == {disk.id: None, raw.id: None}

    second = world.start_backup(vm, disk, raw, from_checkpoint_id=full.to_checkpoint_id)
    assert modes(world, vm, second) == {disk.id: "incremental", raw.id: "full"}
    download(world, second, disk, tmp_path / "second.qcow2", base=tmp_path / "full.qcow2")
    download(world, second, raw, tmp_path / "raw.qcow2")
    world.finalize_backup(vm, second)

    image = export(tmp_path / "full.qcow2", tmp_path / "full.raw")
    assert image[1 << 20 : 2 << 20] == b"\1" * (1 << 20)
    assert image[2 << 20 : (2 << 20) + 65536] == bytes(65536)
    world.stop_vm(vm)
    assert export(tmp_path / "second.qcow2", tmp_path / "second.raw") == export(disk.path, tmp_path / "now.raw")
    size = (tmp_path / "second.qcow2").stat().st_size
    assert size < (tmp_path / "full.qcow2").stat().st_size
    chain = world.checkpoints(vm).list()
    assert [c.id for c in chain] == [full.to_checkpoint_id, second.to_checkpoint_id]
    assert chain[1].parent_id == chain[0].id
    assert [c.description for c in chain] == ["nightly", None]
    assert set(world.call(world.host.bitmaps, disk.path)) == {c.id for c in chain}


def test_cold_backup_and_increment(world: Any, tmp_path: Path) -> None:
    """A VM that is down is read by qemu-nbd; what it wrote while it ran in between is in the increment."""
    disk = world.add_disk()
    vm = world.add_vm(disk, up=False)
    full = world.start_backup(vm, disk)
    assert full.host is None
    download(world, full, disk, tmp_path / "full.qcow2")
    world.finalize_backup(vm, full)
    world.start_vm(vm)
    world.write(vm, "write -P 7 512k 128k")
    world.stop_vm(vm)
    second = world.start_backup(vm, disk, from_checkpoint_id=full.to_checkpoint_id)
    download(world, second, disk, tmp_path / "second.qcow2", base=tmp_path / "full.qcow2")
    world.finalize_backup(vm, second)
    image = export(tmp_path / "second.qcow2", tmp_path / "second.raw")
    assert image == export(disk.path, tmp_path / "now.raw")
    assert image[512 << 10 : 640 << 10] == b"\7" * (128 << 10)
    assert not list((world.run / "nbd").glob("*.sock"))


@pytest.mark.parametrize("fmt", ["raw", "cow"])
def test_upload_then_download(world: Any, tmp_path: Path, fmt: Any) -> None:
    """What is uploaded through NBD comes back the same, whatever the disk's own format."""
    source = tmp_path / "source.raw"
    source.write_bytes(b"\3" * (1 << 20) + bytes(2 << 20) + b"\4" * (1 << 20))
    disk = world.add_disk(fmt=fmt)
    upload = world.start_transfer(disk=types.Disk(id=disk.id), direction=types.ImageTransferDirection.UPLOAD)
    assert disk.status == "locked"
    assert world.ticket(upload)["ops"] == ["write"]
    client.upload(str(source), upload.transfer_url, str(world.daemon.ca))
    world.finalize_transfer(upload)
    assert disk.status == "ok"
    assert disk.actual_size > 0
    transfer = world.start_transfer(disk=types.Disk(id=disk.id))
    client.download(transfer.transfer_url, str(tmp_path / "back.raw"), str(world.daemon.ca), fmt="raw")
    world.finalize_transfer(transfer)
    assert (tmp_path / "back.raw").read_bytes() == source.read_bytes()
    assert disk.status == "ok"


def test_qcow2_file_up_and_down(world: Any, tmp_path: Path) -> None:
    """Format cow moves the file itself."""
    disk = world.add_disk()
    source = tmp_path / "source.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", source, "4M"], check=True)
    subprocess.run(["qemu-io", "-c", "write -P 9 0 64k", source], check=True, capture_output=True)
    asked = {"disk": types.Disk(id=disk.id), "format": types.DiskFormat.COW}
    upload = world.start_transfer(direction=types.ImageTransferDirection.UPLOAD, **asked)
    ticket = world.ticket(upload)
    assert ticket["url"] == f"file://{disk.path}"
    assert ticket["size"] == int(4 * (1 << 20) * 1.1) + 1 + (1 << 20)
    put(world, upload, source.read_bytes())
    assert world.finalize_transfer(upload).phase.value == "finished_success"
    transfer = world.start_transfer(**asked)
    assert world.ticket(transfer)["size"] == disk.path.stat().st_size
    world.finalize_transfer(transfer)
    assert export(disk.path, tmp_path / "now.raw")[:65536] == b"\x09" * 65536


def test_upload_of_a_qcow2_with_a_backing_file_fails(world: Any, tmp_path: Path) -> None:
    """The host looks at what was uploaded; when it is not good the disk is removed."""
    disk = world.add_disk()
    source = tmp_path / "source.qcow2"
    argv = ["qemu-img", "create", "-q", "-f", "qcow2", "-u", "-b", "base", "-F", "raw", source, "4M"]
    subprocess.run(argv, check=True)
    upload = world.start_transfer(
        disk=types.Disk(id=disk.id),
        format=types.DiskFormat.COW,
        direction=types.ImageTransferDirection.UPLOAD,
    )
    put(world, upload, source.read_bytes())
    assert world.finalize_transfer(upload).phase.value == "finished_failure"
    assert disk.id not in world.state.disks
    assert not disk.path.exists()
    assert 1034 in world.codes()
