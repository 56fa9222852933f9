# SPDX-License-Identifier: GPL-3.0-or-later
"""Several NFS targets: a workload moves from one to another, and what it left is restored, kept and removed there."""

from __future__ import annotations

from pathlib import Path

import pytest

from demo.deployment import CommandError, Deployment, Lab, deployed, run
from tests.system.manager import Manager

pytestmark = [pytest.mark.lab, pytest.mark.xdist_group("system"), pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def site(lab: Lab, lab_directory: Path) -> object:
    """A deployment with three targets, each an export of its own but for the first one's size."""
    with deployed(lab, lab_directory / "several", export="third", more={"nfs2": "second"}) as deployment:
        yield deployment


def test_a_workload_moves_to_another_target(lab: Lab, site: Deployment, manager: Manager) -> None:
    assert "backed up to nfs1" in site.overkeep("workload", "create", "moving", "--vm", "moving").text
    kept = []
    for number in range(2):
        lab.block_io("moving", "vda", f"write -P {number + 1} {number * 4}M 3M")
        kept.append(_frozen(manager, site, number))
        site.overkeep("backup", "moving")
    told = site.overkeep("workload", "set-target", "moving", "nfs2").text
    assert "its next backup is a full one" in told
    assert "2 restore points stay on nfs1" in told
    lab.block_io("moving", "vda", "write -P 9 30M 1M")
    kept.append(_frozen(manager, site, 2))
    site.overkeep("backup", "moving")
    points = site.overkeep("points", "--json").json()
    assert [(point["target"], point["mode"]) for point in points] == [
        ("nfs1", "full"),
        ("nfs1", "incremental"),
        ("nfs2", "full"),
    ]
    for number, point in enumerate(points):
        copy = f"moving-{number}"
        site.overkeep("restore", point["id"], "--name", copy)
        [disk] = manager.disks(copy)
        run(["qemu-img", "compare", "-q", "-U", manager.volume(disk), kept[number]])

    site.overkeep("policy", "create", "two", "--keep-last", "2")
    site.overkeep("workload", "set-policy", "moving", "two")
    site.overkeep("backup", "moving")
    left = site.overkeep("points", "--json").json()
    assert [point["target"] for point in left] == ["nfs2", "nfs2"]
    assert list(site.root("nfs1").glob("workloads/*/vms/*/disks/*/*.qcow2")) == [], "merged away by the mover there"
    assert manager.open_things() == []


def test_a_target_that_is_another_or_away_is_told(site: Deployment) -> None:
    table = site.overkeep("targets").text
    assert "nfs1" in table
    assert "nfs2" in table
    root = site.root("nfs1")
    identity = root / "overkeep.json"
    known = identity.read_text()
    identity.write_text(known.replace(known.split('"id": "')[1][:8], "00000000"))
    try:
        with pytest.raises(CommandError, match="target-differs"):
            site.overkeep("targets")
        shown = site.overkeep("points", expect=1)
        assert "Target nfs1 cannot be read now: its points are shown as they were last seen" in shown.errors
        assert "nfs2" in shown.text
        site.overkeep("target", "accept", "nfs1", "--yes")
        assert "00000000" in site.overkeep("target", "show", "nfs1").text
    finally:
        identity.write_text(known)
    site.overkeep("target", "accept", "nfs1", "--yes")
    assert site.overkeep("targets").status == 0


def _frozen(manager: Manager, site: Deployment, number: int) -> Path:
    """A copy of what the disk of the running VM holds now: nothing writes to it between two commands of a test."""
    [disk] = manager.disks("moving")
    kept = site.directory / f"moving-then-{number}.qcow2"
    run(["qemu-img", "convert", "-U", "-O", "qcow2", manager.volume(disk), kept])
    return kept
