# SPDX-License-Identifier: GPL-3.0-or-later
"""Table tests of the decision what a restore makes."""

from __future__ import annotations

import dataclasses
import datetime as dt
from typing import Any

import pytest

from overkeep.errors import OverkeepError
from overkeep.model.inventory import DiskFormat
from overkeep.model.points import DiskImage, Mode, RestorePoint
from overkeep.model.restore import (
    BadVmName,
    Names,
    NameTaken,
    NoCluster,
    NoStorageDomain,
    NoSuchDiskInPoint,
    RestorePlan,
    RestoreRequest,
    plan_restore,
    restored_disk_id,
)
from overkeep.units import GIB

NAMES = Names(
    vms={"web": "v1", "db": "v2"},
    clusters={"Default": "c1", "Second": "c2"},
    storage_domains={"fast": "s1", "slow": "s2"},
    vnic_profiles={"ovirtmgmt/ovirtmgmt": "n1", "dmz/dmz": "n2"},
)


def image(disk_id: str, name: str, **changes: Any) -> DiskImage:
    plain = DiskImage(
        disk_id=disk_id,
        name=name,
        file=f"{disk_id}.qcow2",
        backing=None,
        mode=Mode.FULL,
        reason="",
        virtual_size=10 * GIB,
        stored=0,
        covered=0,
        moved=0,
        format=DiskFormat.COW,
        interface="virtio",
        bootable=False,
        storage_domain_id="s1",
        storage_domain="fast",
    )
    return dataclasses.replace(plain, **changes)


BOOT = image("d1", "web_Disk1", bootable=True, tracks_changes=True)
DATA = image("d2", "data", format=DiskFormat.RAW, sparse=True, tracks_changes=True)


def nic(**changes: Any) -> dict[str, Any]:
    plain = {
        "name": "nic1",
        "mac": "56:6f:00:00:00:01",
        "interface": "virtio",
        "vnic_profile": {"id": "n1", "name": "ovirtmgmt"},
        "network": {"name": "ovirtmgmt"},
    }
    return {**plain, **changes}


DOCUMENT: dict[str, Any] = {"cluster": {"id": "c1", "name": "Default"}, "nics": [nic()]}


def plan(
    *images: DiskImage, document: dict[str, Any] | None = None, names: Names = NAMES, **request: Any
) -> RestorePlan:
    point = RestorePoint(
        id="p1",
        workload_id="w",
        vm_id="v1",
        vm_name="web",
        created=dt.datetime(2026, 11, 22, tzinfo=dt.UTC),
        job_id="j0",
        mode=Mode.FULL,
        checkpoint_id=None,
        images=images or (BOOT, DATA),
    )
    wanted = RestoreRequest(**{"point_id": "p1", "name": "web-copy", **request})
    return plan_restore(point, wanted, document=DOCUMENT if document is None else document, names=names, job_id="j1")


def test_a_copy_beside_the_original() -> None:
    made = plan(start=True)
    assert (made.vm_name, made.cluster_id, made.start, made.warnings) == ("web-copy", "c1", True, ())
    boot, data = made.disks
    assert (boot.name, boot.bootable, boot.interface, boot.storage_domain_id) == (
        "web-copy_Disk1",
        True,
        "virtio",
        "s1",
    )
    assert (boot.format, boot.tracks_changes, boot.size) == (DiskFormat.COW, True, 10 * GIB)
    assert (data.name, data.format, data.tracks_changes) == ("data", DiskFormat.RAW, False)
    assert [(n.name, n.vnic_profile_id, n.mac) for n in made.nics] == [("nic1", "n1", "")]


def test_disk_ids_follow_from_the_job() -> None:
    first, again = plan(), plan()
    assert (
        [d.id for d in first.disks] == [d.id for d in again.disks] == [restored_disk_id("j1", i) for i in ("d1", "d2")]
    )
    assert restored_disk_id("j1", "d1") == "99c74225-1391-5d6a-aa50-19dfecdea708"  # of running jobs: must never change
    assert restored_disk_id("j2", "d1") != restored_disk_id("j1", "d1")


@pytest.mark.parametrize("name", ["", "a b", "a/b", "a;b", "x" * 256, "web\n"])
def test_bad_names(name: str) -> None:
    with pytest.raises(BadVmName):
        plan(name=name)


def test_name_taken() -> None:
    with pytest.raises(NameTaken, match="'db'") as caught:
        plan(name="db")
    assert caught.value.status == 409


CLUSTERS = {
    "as kept": (DOCUMENT, None, "c1"),
    "renamed": ({"cluster": {"id": "c1", "name": "Old"}}, None, "c1"),
    "made anew": ({"cluster": {"id": "gone", "name": "Second"}}, None, "c2"),
    "asked for by name": (DOCUMENT, "Second", "c2"),
    "asked for by id": (DOCUMENT, "c2", "c2"),
    "nothing kept but asked for": ({}, "Second", "c2"),
}


@pytest.mark.parametrize("case", CLUSTERS)
def test_cluster(case: str) -> None:
    document, wanted, expected = CLUSTERS[case]
    assert plan(document=document, cluster=wanted).cluster_id == expected


@pytest.mark.parametrize(
    ("document", "wanted"), [({"cluster": {"id": "x", "name": "Gone"}}, None), (DOCUMENT, "Gone"), ({}, None)]
)
def test_no_cluster(document: dict[str, Any], wanted: str | None) -> None:
    with pytest.raises(NoCluster, match="Default, Second"):
        plan(document=document, cluster=wanted)


DOMAINS = {
    "as kept": (BOOT, None, "s1"),
    "renamed": (image("d", "d", storage_domain="old"), None, "s1"),
    "made anew": (image("d", "d", storage_domain_id="gone", storage_domain="slow"), None, "s2"),
    "asked for by name": (BOOT, "slow", "s2"),
    "asked for by id": (BOOT, "s2", "s2"),
}


@pytest.mark.parametrize("case", DOMAINS)
def test_storage_domain(case: str) -> None:
    disk, wanted, expected = DOMAINS[case]
    assert [d.storage_domain_id for d in plan(disk, storage_domain=wanted).disks] == [expected]


@pytest.mark.parametrize("wanted", [None, "gone"])
def test_no_storage_domain(wanted: str | None) -> None:
    with pytest.raises(NoStorageDomain, match=r"'gone'.*'lost'.*fast, slow"):
        plan(image("d", "lost", storage_domain_id="x", storage_domain="gone"), storage_domain=wanted)


FORMATS = {
    "thin qcow2": (image("d", "d"), True, False),
    "preallocated qcow2 that tracks": (image("d", "d", sparse=False, tracks_changes=True), False, True),
    "preallocated qcow2 that does not": (image("d", "d", sparse=False), True, False),
    "preallocated raw": (image("d", "d", format=DiskFormat.RAW, sparse=False), False, False),
    "thin raw": (image("d", "d", format=DiskFormat.RAW, sparse=True), True, False),
}


@pytest.mark.parametrize("case", FORMATS)
def test_only_combinations_the_manager_takes(case: str) -> None:
    disk, sparse, tracks = FORMATS[case]
    made = plan(disk).disks[0]
    assert (made.sparse, made.tracks_changes) == (sparse, tracks)


NICS = {
    "by id": (nic(), "n1", 0),
    "profile renamed": (nic(vnic_profile={"id": "n1", "name": "old"}), "n1", 0),
    "profile made anew": (nic(vnic_profile={"id": "x", "name": "dmz"}, network={"name": "dmz"}), "n2", 0),
    "profile of another network": (nic(vnic_profile={"id": "x", "name": "dmz"}, network={"name": "lan"}), "", 1),
    "without a network": ({"name": "nic1", "interface": "e1000"}, "", 0),
}


@pytest.mark.parametrize("case", NICS)
def test_nics(case: str) -> None:
    kept, profile, warnings = NICS[case]
    made = plan(document={**DOCUMENT, "nics": [kept]})
    assert [n.vnic_profile_id for n in made.nics] == [profile]
    assert len(made.warnings) == warnings
    assert all("nic1" in warning for warning in made.warnings)


def test_macs_are_kept_when_asked_for() -> None:
    assert plan(keep_macs=True).nics[0].mac == "56:6f:00:00:00:01"


@pytest.mark.parametrize("wanted", [("d2",), ("data",), ("d2", "data")])
def test_some_disks(wanted: tuple[str, ...]) -> None:
    made = plan(disks=wanted)
    assert [d.image.disk_id for d in made.disks] == ["d2"]
    assert len(made.warnings) == 1
    assert "boot" in made.warnings[0]


def test_a_disk_that_the_point_lacks() -> None:
    with pytest.raises(NoSuchDiskInPoint, match=r"'d9'.*web_Disk1, data"):
        plan(disks=("d1", "d9"))


@pytest.mark.parametrize(
    "document",
    [{"cluster": "c1"}, {"cluster": ["c1"], "nics": {}}, {"cluster": {"id": 5}, "nics": [7, {"name": []}]}],
)
def test_a_document_of_any_shape_is_no_crash(document: dict[str, Any]) -> None:
    with pytest.raises(OverkeepError):
        plan(document=document)
    assert plan(document=document, cluster="Default").cluster_id == "c1"
