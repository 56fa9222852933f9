# SPDX-License-Identifier: GPL-3.0-or-later
"""Disks copied, moved and sparsified."""

from __future__ import annotations

from typing import Any

import ovirtsdk4
import pytest
from ovirtsdk4 import types


def settled(lab: Any, service: Any) -> Any:
    lab.wait(lambda: service.get().status == types.DiskStatus.OK)
    return service.get()


def domain(system: Any, name: str) -> types.StorageDomain:
    return system.storage_domains_service().list(search=f"name={name}")[0]


def test_a_copy_is_a_disk_of_its_own(system: Any, lab: Any) -> None:
    source = lab.engine.state.disks[lab.disk_id("db_system")]
    source.path.write_bytes(b"data" * 1024)
    service = system.disks_service().disk_service(source.id)
    service.copy(storage_domain=domain(system, "data2"), disk=types.Disk(alias="again"))
    lab.wait(lambda: system.disks_service().list(search="alias=again"))
    copy = settled(lab, system.disks_service().disk_service(lab.disk_id("again")))
    assert copy.id != source.id
    assert copy.storage_domains[0].id == domain(system, "data2").id
    assert lab.engine.state.disks[copy.id].path.read_bytes() == source.path.read_bytes()
    assert 2006 in lab.codes()


def test_a_move_takes_the_bitmaps_along(system: Any, lab: Any) -> None:
    disk = lab.engine.state.disks[lab.disk_id("db_system")]
    lab.run(lab.hosts[0].add_bitmap(disk.path, "mark"))
    old = disk.path
    service = system.disks_service().disk_service(disk.id)
    service.move(storage_domain=domain(system, "data2"))
    assert settled(lab, service).storage_domains[0].id == domain(system, "data2").id
    assert not old.exists()
    assert list(lab.run(lab.hosts[0].bitmaps(disk.path))) == ["mark"]


def test_sparsified_disks_keep_their_bitmaps(system: Any, lab: Any) -> None:
    disk = lab.engine.state.disks[lab.disk_id("db_system")]
    lab.run(lab.hosts[0].add_bitmap(disk.path, "mark"))
    before = disk.image_id
    service = system.disks_service().disk_service(disk.id)
    service.sparsify()
    assert settled(lab, service).image_id != before
    assert list(lab.run(lab.hosts[0].bitmaps(disk.path))) == ["mark"]
    assert disk.path.exists()


def test_a_disk_in_use_stays_where_it_is(system: Any, lab: Any) -> None:
    disk = lab.engine.state.disks[lab.disk_id("web_system")]
    next(lab.engine.state.vms_of_disk(disk.id)).status = "up"
    service = system.disks_service().disk_service(disk.id)
    with pytest.raises(ovirtsdk4.Error, match="must be in status Down"):
        service.move(storage_domain=domain(system, "data2"))


def test_what_makes_no_sense_is_refused(system: Any, lab: Any) -> None:
    service = system.disks_service().disk_service(lab.disk_id("db_system"))
    with pytest.raises(ovirtsdk4.Error, match="must both be different"):
        service.move(storage_domain=domain(system, "data"))
    with pytest.raises(ovirtsdk4.Error, match="block Storage Domains"):
        service.reduce()
