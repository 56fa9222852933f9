# SPDX-License-Identifier: GPL-3.0-or-later
"""A policy carried out: what it does not keep goes within the backup job, and all that stays is as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from demo.deployment import CommandError, Deployment, Lab, run
from tests.system.manager import Manager

pytestmark = [pytest.mark.lab, pytest.mark.xdist_group("system"), pytest.mark.timeout(600)]

KEEP, BACKUPS = 3, 6


def test_of_six_backups_the_last_three_stay_and_restore(lab: Lab, product: Deployment, manager: Manager) -> None:
    product.overkeep("policy", "create", "three", "--keep-last", str(KEEP), "--compression", "zstd")
    product.overkeep("workload", "create", "aging", "--vm", "aging")
    product.overkeep("workload", "set-policy", "aging", "three")
    frozen: list[dict[str, Path]] = []
    for number in range(BACKUPS):
        lab.block_io("aging", "vda", f"write -P {number + 1} {number * 5}M 6M", f"write -P {number + 65} 40M 1M")
        lab.block_io("aging", "vdb", f"write -P {number + 33} {number * 4}M 3M", "write -z 1M 1M")
        frozen.append({disk.name: _frozen(manager, disk, product, number) for disk in manager.disks("aging")})
        product.overkeep("backup", "aging")

    points = product.overkeep("points", "--workload", "aging", "--json").json()
    assert len(points) == KEEP
    for point, disks in zip(points, frozen[-KEEP:], strict=True):
        _assert_same(product, point, disks)
    folders = {product.image_path(points[0], image).parent for image in points[0]["images"]}
    for folder in folders:
        assert len(list(folder.glob("*.qcow2"))) == KEEP, "an image a point, and nothing of those that are gone"
        assert not (folder / "merge.json").exists()

    for number, (point, disks) in enumerate(zip(points, frozen[-KEEP:], strict=True)):
        copy = f"aging-{number}"
        product.overkeep("restore", point["id"], "--vm", "aging", "--name", copy)
        for disk in manager.disks(copy):
            original = disks[disk.name.replace(copy, "aging")]
            run(["qemu-img", "compare", "-q", "-U", manager.volume(disk), original])
    jobs = product.overkeep("job", "list", "--json").json()
    last = next(job for job in jobs if job["kind"] == "backup" and job["subject"] == "aging")
    told = product.overkeep("job", "show", last["id"]).text
    assert "the policy does not keep it" in told
    assert "merged away" in told
    assert manager.open_things() == []

    first, middle, newest = points
    product.overkeep("point", "pin", middle["id"], "--vm", "aging", "--reason", "audit")
    assert "audit" in product.overkeep("points", "--workload", "aging").text
    with pytest.raises(CommandError, match="audit"):
        product.overkeep("point", "delete", middle["id"], "--vm", "aging", "--yes")
    product.overkeep("point", "unpin", middle["id"], "--vm", "aging")
    for gone in (middle, newest):
        product.overkeep("point", "delete", gone["id"], "--vm", "aging", "--yes")
    [left] = product.overkeep("points", "--workload", "aging", "--json").json()
    assert left == first
    _assert_same(product, left, frozen[-KEEP])
    product.overkeep("backup", "aging")  # without the checkpoint of what was the newest point
    [_, after] = product.overkeep("points", "--workload", "aging", "--json").json()
    assert {image["changes"] for image in after["images"]} == {"compared"}
    product.overkeep("restore", after["id"], "--vm", "aging", "--name", "aging-after")
    for disk in manager.disks("aging-after"):
        original = frozen[-1][disk.name.replace("aging-after", "aging")]
        run(["qemu-img", "compare", "-q", "-U", manager.volume(disk), original])
    assert manager.open_things() == []


def _assert_same(product: Deployment, point: dict[str, Any], disks: dict[str, Path]) -> None:
    """Each image of a point is sound, and reads as the disk did."""
    for image in point["images"]:
        path = product.image_path(point, image)
        run(["qemu-img", "check", "-q", path])
        run(["qemu-img", "compare", "-q", path, disks[image["name"]]])


def _frozen(manager: Manager, disk: Any, product: Deployment, number: int) -> Path:
    """A copy of what a disk of a running VM holds now: nothing writes to it between two commands of a test."""
    kept = product.directory / f"{disk.name}-then-{number}.qcow2"
    run(["qemu-img", "convert", "-U", "-O", "qcow2", manager.volume(disk), kept])
    return kept
