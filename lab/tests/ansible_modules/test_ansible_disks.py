# SPDX-License-Identifier: GPL-3.0-or-later
"""The collection's module for disks, and those for what disks depend on."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from lab.tests.ansible_modules.collection import Modules


def test_a_disk_is_made_changed_and_removed(modules: Modules) -> None:
    disk = {"name": "plate", "storage_domain": "data"}
    modules.changes("disk", check=True, size="16MiB", **disk)
    modules.once("disk", size="16MiB", format="cow", backup="incremental", **disk)
    modules.once("disk", size="32MiB", description="grown", wipe_after_delete=True, propagate_errors=True, **disk)
    found = modules.run("disk_info", pattern="name=plate")["ovirt_disks"]
    assert [(item["provisioned_size"], item["backup"]) for item in found] == [(32 << 20, "incremental")]
    modules.changes("disk", sparsify=True, **disk)
    modules.once("disk", name="plate", state="absent")


def test_a_disk_is_moved_and_copied(modules: Modules) -> None:
    made = modules.changes("disk", name="moved", size="8MiB", storage_domain="data")["id"]
    modules.once("disk", id=made, storage_domain="data2")
    assert modules.run("disk_info", pattern="storage.name=data2 and name=moved")["ovirt_disks"][0]["id"] == made
    modules.changes("disk", id=made, storage_domains=["data", "data2"])
    copies = modules.run("disk_info", pattern="name=moved")["ovirt_disks"]
    assert len(copies) == 2
    for disk in copies:
        modules.changes("disk", id=disk["id"], state="absent")


def test_a_disk_of_a_vm(modules: Modules) -> None:
    disk = {"name": "hung", "storage_domain": "data", "vm_name": "idle"}
    modules.once("disk", size="8MiB", interface="virtio_scsi", bootable=False, **disk)
    modules.once("disk", activate=False, **disk)
    modules.once("disk", activate=True, interface="virtio", size="16MiB", **disk)
    modules.changes("disk", state="detached", **disk)
    modules.once("disk", state="attached", interface="virtio", **disk)
    modules.changes("disk", state="detached", **disk)
    modules.changes("disk", name="hung", state="absent")


def test_a_disk_of_a_running_vm(modules: Modules) -> None:
    disk = {"name": "hot", "storage_domain": "data", "vm_name": "plain"}
    modules.once("disk", size="8MiB", interface="virtio", **disk)
    (vm,) = modules.run("vm_info", pattern="name=plain", follow=["disk_attachments.disk"])["ovirt_vms"]
    assert {item["disk"]["name"]: item["active"] for item in vm["disk_attachments"]} == {"d1": True, "hot": True}
    modules.changes("disk", state="detached", **disk)
    modules.changes("disk", name="hot", state="absent")


@pytest.mark.parametrize("form", ["cow", "raw"])
def test_a_disk_is_uploaded_and_downloaded(modules: Modules, tmp_path: Path, form: str) -> None:
    image, back = tmp_path / "image.qcow2", tmp_path / "back"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", image, "8M"], check=True, timeout=90)
    argv = ["qemu-io", "-f", "qcow2", "-c", "write -P 7 1M 2M", image]
    subprocess.run(argv, check=True, timeout=90, stdout=subprocess.DEVNULL)
    disk = {"name": f"up-{form}", "storage_domain": "data", "format": form}
    modules.once("disk", upload_image_path=str(image), **disk)
    argv = ["qemu-io", "-f", "qcow2", "-c", "write -P 8 2M 1M", image]
    subprocess.run(argv, check=True, timeout=90, stdout=subprocess.DEVNULL)
    modules.run("disk", upload_image_path=str(image), force=True, **disk)
    modules.run("disk", download_image_path=str(back), **disk)
    subprocess.run(["qemu-img", "compare", "-q", image, back], check=True, timeout=90)
    modules.changes("disk", name=f"up-{form}", state="absent")


def test_a_cd_is_uploaded_and_inserted(modules: Modules, tmp_path: Path) -> None:
    image = tmp_path / "cd.iso"
    image.write_bytes(b"\0" * 32768 + b"\1CD001" + b"\0" * 32762)
    iso = {"name": "cd.iso", "content_type": "iso", "format": "raw", "storage_domain": "data"}
    modules.changes("disk", upload_image_path=str(image), **iso)
    modules.once("vm", name="idle", cd_iso="cd.iso")
    assert modules.run("vm_info", pattern="name=idle", current_cd=True)["ovirt_vms"][0]["current_cd"] is not None
    modules.once("vm", name="idle", cd_iso="")
    modules.changes("disk", name="cd.iso", state="absent")


def test_a_disk_has_a_profile_and_a_quota(modules: Modules) -> None:
    limits = {"storages": [{"name": "data", "size": 10}], "clusters": [{"name": "Default", "cpu": 4, "memory": 8.0}]}
    quota = modules.once("quota", name="small", data_center="Default", cluster_threshold=50, **limits)["id"]
    modules.once("qos", name="slow", type="storage", data_center="Default", max_iops=100)
    profile = {"name": "cheap", "data_center": "Default", "storage_domain": "data", "qos": "slow"}
    modules.once("disk_profile", description="x", **profile)
    modules.once("disk", name="counted", size="8MiB", storage_domain="data", profile="cheap", quota_id=quota)
    modules.changes("disk", name="counted", state="absent")
    modules.once("disk_profile", state="absent", **profile)
    modules.once("qos", name="slow", type="storage", data_center="Default", state="absent")
    modules.once("quota", name="small", data_center="Default", state="absent")


def test_a_storage_domain_goes_into_maintenance(modules: Modules) -> None:
    domain = {"name": "data2", "data_center": "Default"}
    modules.once("storage_domain", state="maintenance", **domain)
    modules.changes("storage_domain", state="present", comment="ours", **domain)
    found = modules.run("storage_domain_info", pattern="name=data2 and status=active")["ovirt_storage_domains"]
    assert [item["comment"] for item in found] == ["ours"]
