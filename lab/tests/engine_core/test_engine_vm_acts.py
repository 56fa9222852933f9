# SPDX-License-Identifier: GPL-3.0-or-later
"""Small acts on VMs: frozen file systems, the reset button, addresses in order, tickets, and what is always refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import ovirtsdk4 as sdk
import pytest
from ovirtsdk4 import types

from ovirtlab.environment import parse

from .conftest import ENVIRONMENT, serve


def service(lab: Any, system: Any, name: str = "web") -> Any:
    return system.vms_service().vm_service(lab.vm_id(name))


@contextmanager
def refused(text: str, code: int) -> Iterator[None]:
    with pytest.raises(sdk.Error, match=text) as error:
        yield
    assert error.value.code == code


def set_agent(lab: Any, *, there: bool) -> None:
    machine = lab.hosts[0].machines[lab.vm_id("web")]
    machine.definition = replace(machine.definition, agent=there)


def test_file_systems_are_frozen_and_thawed_by_the_guests_agent(lab: Any, system: Any) -> None:
    web, vm_id = service(lab, system), lab.vm_id("web")
    set_agent(lab, there=True)
    web.freeze_filesystems()
    assert lab.hosts[0].machines[vm_id].frozen
    assert lab.codes()[-1] == 10767
    web.thaw_filesystems()
    assert not lab.hosts[0].machines[vm_id].frozen
    assert lab.codes()[-1] == 10768


@pytest.mark.parametrize(("verb", "code"), [("freeze", 10769), ("thaw", 10770)])
def test_without_an_agent_nothing_is_frozen(lab: Any, system: Any, verb: str, code: int) -> None:
    web = service(lab, system)
    set_agent(lab, there=False)
    with refused("Guest agent non responsive", 400):
        getattr(web, f"{verb}_filesystems")()
    assert lab.codes()[-1] == code
    with refused(f"Cannot {verb} VM because the VM is in Down status", 409):
        getattr(service(lab, system, "db"), f"{verb}_filesystems")()


def test_a_vm_that_is_reset_stays_up(lab: Any, system: Any) -> None:
    web = service(lab, system)
    web.reset()
    assert web.get().status == types.VmStatus.UP
    assert lab.hosts[0].machines[lab.vm_id("web")].resets == 1
    assert lab.codes()[-1] == 221
    with refused("Cannot reset VM because the VM is in Down status", 409):
        service(lab, system, "db").reset()


def test_addresses_are_given_in_the_order_of_names_before_the_first_start(lab: Any, system: Any) -> None:
    db = service(lab, system, "db")
    for name in ("nic10", "nic9", "a"):
        db.nics_service().add(types.Nic(name=name))
    db.reorder_mac_addresses()
    nics = sorted(db.nics_service().list(), key=lambda nic: nic.mac.address)
    assert [nic.name for nic in nics] == ["a", "nic1", "nic9", "nic10"]


def test_a_ticket_is_given_for_the_console_of_a_vm_that_runs(lab: Any, system: Any) -> None:
    given = service(lab, system).ticket(ticket=types.Ticket(value="secret", expiry=60))
    assert (given.value, given.expiry) == ("secret", 60)
    with refused("VM is not running", 409):
        service(lab, system, "db").ticket()


@pytest.mark.parametrize(
    ("act", "text", "code"),
    [
        (lambda web: web.logon(), "Guest agent non responsive", 400),
        (lambda web: web.detach(), "Cannot detach VM from pool. VM is not attached to the VM-Pool", 409),
        (lambda web: web.maintenance(), r"Action \[maintenanceEnabled\] required for maintenance", 400),
        (lambda web: web.maintenance(maintenance_enabled=True), "only available for the VM containing the hosted", 400),
    ],
)
def test_acts_that_no_vm_of_the_lab_can_do(
    lab: Any, system: Any, act: Callable[[Any], object], text: str, code: int
) -> None:
    with refused(text, code):
        act(service(lab, system))


def test_each_act_takes_its_own_permit(tmp_path: Path) -> None:
    people = """
roles:
  - {name: connector, permits: [login, connect_to_vm]}
users:
  - {name: tenant@internal, password: pw, roles: [{role: connector, vm: web}]}
"""
    with serve(tmp_path, parse(ENVIRONMENT + people, origin="test")) as lab:
        base = f"{lab.url}/ovirt-engine/api/vms/{lab.vm_id('web')}/"
        with httpx.Client(base_url=base, auth=("tenant@internal", "pw")) as tenant:
            assert tenant.post("ticket", json={}).status_code == 200
            for act in ("freezefilesystems", "thawfilesystems", "reset", "reordermacaddresses"):
                assert tenant.post(act, json={}).status_code == 403
        assert lab.hosts[0].machines[lab.vm_id("web")].resets == 0


def test_a_disk_of_iso_content_is_put_into_the_drive(lab: Any, system: Any) -> None:
    cds, disk_id = service(lab, system).cdroms_service(), lab.disk_id("db_system")
    with refused(r"Cdrom \[file.id\] required for add", 400):
        cds.add(types.Cdrom())
    with refused("The specified ISO disk does not exist", 400):
        cds.add(types.Cdrom(file=types.File(id=disk_id)))
    lab.engine.state.disks[disk_id].content_type = "iso"
    [drive] = cds.list()
    added = cds.add(types.Cdrom(file=types.File(id=disk_id)))
    assert (added.id, added.file.id) == (drive.id, disk_id)
    cds.cdrom_service(drive.id).update(types.Cdrom(file=types.File(id="")))
    assert cds.list()[0].file is None
