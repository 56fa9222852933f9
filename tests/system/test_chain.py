# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups of running VMs and their restores, compared byte for byte, with the lab seen from the outside."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from demo.deployment import Deployment, Lab, run
from overkeep.units import GIB, KIB, MIB
from tests.system.manager import Manager

pytestmark = [pytest.mark.lab, pytest.mark.xdist_group("system"), pytest.mark.timeout(300)]


def newest(product: Deployment, workload: str, vm: str) -> dict[str, Any]:
    """The newest restore point of a VM."""
    points = product.overkeep("points", "--workload", workload, "--json").json()
    return next(p for p in reversed(points) if p["vm_name"] == vm)


def by_name(point: dict[str, Any], name: str) -> dict[str, Any]:
    """The image of the disk of this name."""
    return next(image for image in point["images"] if image["name"] == name)


def test_full_and_incrementals_restore_to_each_point(lab: Lab, product: Deployment, manager: Manager) -> None:
    product.overkeep("workload", "create", "chain", "--vm", "small")
    writes = (
        ("write -P 0x11 1M 20M", "write -P 0x21 0 4M"),
        ("write -P 0x12 3M 64k", "write -P 0x22 8M 1M"),
        ("write -z 5M 2M", "write -P 0x23 16M 1M"),
    )
    frozen: list[dict[str, Path]] = []
    points = []
    for cow, raw in writes:
        lab.block_io("small", "vda", cow)
        lab.block_io("small", "vdb", raw)
        frozen.append({disk.name: _frozen(manager, disk, product, len(frozen)) for disk in manager.disks("small")})
        product.overkeep("backup", "chain")
        points.append(newest(product, "chain", "small"))

    modes = [(by_name(p, "small_cow")["mode"], by_name(p, "small_raw")["mode"]) for p in points]
    assert modes == [("full", "full"), ("incremental", "incremental"), ("incremental", "incremental")]
    changes = [(by_name(p, "small_cow")["changes"], by_name(p, "small_raw")["changes"]) for p in points]
    assert changes == [("all", "all"), ("tracked", "compared"), ("tracked", "compared")]
    for point in points[1:]:
        raw_image = by_name(point, "small_raw")
        assert "raw disks" in raw_image["reason"]
        assert raw_image["covered"] == 64 * MIB, "a raw disk is looked at whole"
        assert raw_image["stored"] <= MIB + 512 * KIB, "and only the MiB that changed is kept"
    assert len(manager.checkpoints("small")) == 1, "only the checkpoint of the last point is kept"
    assert by_name(points[1], "small_cow")["covered"] == 64 * KIB
    assert by_name(points[2], "small_cow")["moved"] == 0, "zeroes are not read"

    for number, (point, disks) in enumerate(zip(points, frozen, strict=True)):
        for name, kept in disks.items():
            image = product.image_path(point, by_name(point, name))
            run(["qemu-img", "check", "-q", image])
            run(["qemu-img", "compare", "-q", image, kept])
        copy = f"small-{number}"
        product.overkeep("restore", point["id"], "--vm", "small", "--name", copy)
        for disk in manager.disks(copy):
            # The copy's disks bear its name: small_cow is small-0_cow there.
            original = disks[disk.name.replace(copy, "small")]
            run(["qemu-img", "compare", "-q", "-U", manager.volume(disk), original])
    assert manager.open_things() == []


def _frozen(manager: Manager, disk: Any, product: Deployment, number: int) -> Path:
    """A copy of what a disk of a running VM holds now: nothing writes to it between two commands of a test."""
    kept = product.directory / f"{disk.name}-{number}.qcow2"
    run(["qemu-img", "convert", "-U", "-O", "qcow2", manager.volume(disk), kept])
    return kept


def test_a_terabyte_with_little_in_it_makes_a_small_image(lab: Lab, product: Deployment, manager: Manager) -> None:
    lab.block_io("tera", "vda", *(f"write -P {piece + 1} {piece * 10}G 1M" for piece in range(100)))
    product.overkeep("workload", "create", "tera", "--vm", "tera")
    product.overkeep("backup", "tera")
    point = newest(product, "tera", "tera")
    (image,) = point["images"]
    path = product.image_path(point, image)
    assert image["virtual_size"] == 1024 * GIB
    assert image["stored"] <= 110 * MIB
    assert path.stat().st_size <= 110 * MIB
    run(["qemu-img", "compare", "-q", "-U", path, manager.volume(manager.disks("tera")[0])])


def test_an_incremental_holds_only_changed_clusters(lab: Lab, product: Deployment) -> None:
    product.overkeep("workload", "create", "sample", "--vm", "sample")
    lab.block_io("sample", "vda", "write -P 0x31 0 40M")
    product.overkeep("backup", "sample")
    changed = 200
    lab.block_io("sample", "vda", *(f"write -P 0x32 {cluster * 256 + 4}k 4k" for cluster in range(changed)))
    product.overkeep("backup", "sample")
    point = newest(product, "sample", "sample")
    (image,) = point["images"]
    assert image["mode"] == "incremental"
    assert image["covered"] == changed * 64 * KIB
    assert product.image_path(point, image).stat().st_size <= 1.05 * changed * 64 * KIB + MIB
