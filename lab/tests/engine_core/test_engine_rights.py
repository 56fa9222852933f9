# SPDX-License-Identifier: GPL-3.0-or-later
"""Which permits the calls of a backup client need, and what only administrators may look at."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from ovirtlab.engine.accounts import UnknownPermit, fill
from ovirtlab.engine.clock import Clock
from ovirtlab.engine.roles import predefined
from ovirtlab.engine.state import State
from ovirtlab.environment import parse

from .conftest import ENVIRONMENT, Lab, serve

NEEDED = ("backup_disk", "edit_disk_properties", "create_disk", "manipulate_vm_snapshots")
ROLES = "".join(
    f"  - {{name: without_{left_out}, administrative: true, permits: [{', '.join(set(NEEDED) - {left_out})}]}}\n"
    for left_out in (*NEEDED, "nothing")
)
USERS = "".join(
    f"  - {{name: without_{left_out}@internal, password: pw, roles: [{{role: without_{left_out}}}]}}\n"
    for left_out in (*NEEDED, "nothing")
)
PEOPLE = f"""
roles:
{ROLES}
users:
{USERS}
  - {{name: owner@internal, password: pw, roles: [{{role: UserVmManager, vm: web}}]}}
  - {{name: maker@internal, password: pw, roles: [{{role: UserVmManager, vm: web}}, {{role: DiskCreator}}]}}
"""
INSUFFICIENT = {"reason": "Operation Failed", "detail": "Query execution failed due to insufficient permissions."}
LEGACY = {"legacy": "true"}


@pytest.fixture
def people(tmp_path: Any) -> Iterator[Lab]:
    with serve(tmp_path, parse(ENVIRONMENT + PEOPLE, origin="test")) as running:
        yield running


def client(lab: Lab, name: str) -> httpx.Client:
    base = f"{lab.url}/ovirt-engine/api/"
    password = "secret" if name == "admin" else "pw"
    return httpx.Client(base_url=base, auth=(f"{name}@internal", password), headers={"Accept": "application/json"})


def wanted(lab: Lab) -> dict[str, Any]:
    return {"disks": {"disk": [{"id": lab.disk_id("web_system")}]}}


def begin_backup(lab: Lab) -> str:
    """The path of a backup of the administrator's that is ready."""
    with client(lab, "admin") as admin:
        where = f"vms/{lab.vm_id('web')}/backups"
        made = admin.post(where, json=wanted(lab), params=LEGACY).raise_for_status().json()
        backup = f"{where}/{made['id']}"
        lab.wait(lambda: admin.get(backup).json()["phase"] == "ready")
    return backup


def begin_transfer(lab: Lab) -> str:
    """The path of a transfer of the administrator's, of a disk of a VM that is down."""
    with client(lab, "admin") as admin:
        body = {"disk": {"id": lab.disk_id("db_system")}, "direction": "download", "format": "raw"}
        made = admin.post("imagetransfers", json=body).raise_for_status().json()
    return f"imagetransfers/{made['id']}"


def take_snapshot(lab: Lab) -> str:
    with client(lab, "admin") as admin:
        where = f"vms/{lab.vm_id('web')}/snapshots"
        made = admin.post(where, json={"description": "s", "persist_memorystate": False}).raise_for_status().json()
        snapshot = f"{where}/{made['id']}"
        lab.wait(lambda: admin.get(snapshot).json()["snapshot_status"] == "ok")
    return snapshot


def make_checkpoint(lab: Lab) -> str:
    backup = begin_backup(lab)
    with client(lab, "admin") as admin:
        checkpoint = admin.get(backup).json()["to_checkpoint_id"]
        admin.post(f"{backup}/finalize", json={}).raise_for_status()
        lab.wait(lambda: admin.get(backup).json()["phase"] == "succeeded")
    return f"vms/{lab.vm_id('web')}/checkpoints/{checkpoint}"


Act = Callable[[Lab, httpx.Client], httpx.Response]


def start(lab: Lab, http: httpx.Client) -> httpx.Response:
    return http.post(f"vms/{lab.vm_id('web')}/backups", json=wanted(lab), params=LEGACY)


def finalize(lab: Lab, http: httpx.Client) -> httpx.Response:
    return http.post(f"{begin_backup(lab)}/finalize", json={})


def remove_checkpoint(lab: Lab, http: httpx.Client) -> httpx.Response:
    return http.delete(make_checkpoint(lab))


def transfer(lab: Lab, http: httpx.Client) -> httpx.Response:
    body = {"disk": {"id": lab.disk_id("db_system")}, "direction": "download", "format": "raw"}
    return http.post("imagetransfers", json=body)


def order(verb: str) -> Act:
    return lambda lab, http: http.post(f"{begin_transfer(lab)}/{verb}", json={})


def snapshot(lab: Lab, http: httpx.Client) -> httpx.Response:
    where = f"vms/{lab.vm_id('web')}/snapshots"
    return http.post(where, json={"description": "s", "persist_memorystate": False})


def remove_snapshot(lab: Lab, http: httpx.Client) -> httpx.Response:
    return http.delete(take_snapshot(lab))


CALLS: list[tuple[Act, str]] = [
    (start, "backup_disk"),
    (finalize, "backup_disk"),
    (remove_checkpoint, "backup_disk"),
    (transfer, "edit_disk_properties"),
    (order("extend"), "create_disk"),
    (order("cancel"), "create_disk"),
    (order("finalize"), "create_disk"),
    (snapshot, "manipulate_vm_snapshots"),
    (remove_snapshot, "manipulate_vm_snapshots"),
]


@pytest.mark.parametrize(("act", "permit"), CALLS)
def test_a_call_needs_one_permit(people: Lab, act: Act, permit: str) -> None:
    """Without it 403, and with all others; with the four of them every call is done."""
    with client(people, f"without_{permit}") as http:
        refused = act(people, http)
    assert refused.status_code == 403, refused.text
    assert "[User is not authorized to perform this action.]" in refused.text


@pytest.mark.parametrize("act", [act for act, _ in CALLS])
def test_the_four_permits_of_a_backup_account_are_enough(people: Lab, act: Act) -> None:
    with client(people, "without_nothing") as http:
        assert act(people, http).is_success


def test_backups_and_lists_of_transfers_are_for_administrators(people: Lab) -> None:
    """The engine's queries for them are; also who may back up the VM is told nothing, and not 404."""
    backup, transferring = begin_backup(people), begin_transfer(people)
    vm = f"vms/{people.vm_id('web')}"
    with client(people, "owner") as http:
        for path in (f"{vm}/backups", backup, f"{backup}/disks", f"{vm}/checkpoints", "imagetransfers"):
            answer = http.get(path)
            assert (answer.status_code, answer.json()) == (400, INSUFFICIENT), path
        assert http.get(transferring).status_code == 404  # of a disk that is not theirs
        answer = http.post(f"{backup}/finalize", json={})
        assert (answer.status_code, answer.json()["fault"]) == (400, INSUFFICIENT)
    with client(people, "admin") as admin:
        assert admin.get(backup).json()["phase"] == "ready"
        assert admin.get("imagetransfers").status_code == 200
        filtered = admin.get(f"{vm}/backups", headers={"Filter": "true"})
        assert (filtered.status_code, filtered.json()) == (400, INSUFFICIENT)


def test_a_backup_of_somebody_who_may_not_look_at_it_is_under_way_all_the_same(people: Lab) -> None:
    with client(people, "owner") as http:
        answer = start(people, http)
    assert (answer.status_code, answer.json()) == (400, INSUFFICIENT)
    with client(people, "admin") as admin:
        (backup,) = admin.get(f"vms/{people.vm_id('web')}/backups").json()["backup"]
    assert backup["phase"] != "failed"


@pytest.mark.parametrize(("who", "status"), [("owner", 403), ("maker", 200)])
def test_owners_transfer_their_disks_when_they_may_make_disks_anywhere(people: Lab, who: str, status: int) -> None:
    """The orders name no domain, so that a role on one is of no use."""
    with client(people, "admin") as admin:
        admin.post(f"vms/{people.vm_id('web')}/stop", json={"force": True}).raise_for_status()
        people.wait(lambda: admin.get(f"vms/{people.vm_id('web')}").json()["status"] == "down")
    with client(people, who) as http:
        body = {"disk": {"id": people.disk_id("web_data")}, "direction": "download", "format": "raw"}
        made = http.post("imagetransfers", json=body)
        assert made.status_code == 201
        one = f"imagetransfers/{made.json()['id']}"
        assert http.get(one).status_code == 200
        assert http.post(f"{one}/finalize", json={}).status_code == status


def test_who_makes_a_disk_may_do_everything_with_it(people: Lab) -> None:
    domain = next(key for key, item in people.engine.state.storage_domains.items() if item.name == "data")
    body = {
        "name": "mine",
        "format": "cow",
        "provisioned_size": str(1 << 20),
        "storage_domains": {"storage_domain": [{"id": domain}]},
    }
    with client(people, "maker") as http:
        disk = f"disks/{http.post('disks', json=body).raise_for_status().json()['id']}"
        people.wait(lambda: http.get(disk).json()["status"] == "ok")
        given = http.get(f"{disk}/permissions?follow=role").json()["permission"]
        assert "DiskOperator" in [item["role"]["name"] for item in given]
        assert http.delete(disk).status_code == 200
        people.wait(lambda: http.get(disk).status_code == 404)
    assert not [item for item in people.engine.state.permissions.values() if item.on == ("disk", disk[6:])]


def test_a_role_with_a_permit_that_there_is_not() -> None:
    wrong = parse(f"{ENVIRONMENT}roles: [{{name: r, permits: [fly]}}]\n", origin="test")
    state = State(Clock())
    state.roles = {role.id: role for role in predefined()}
    with pytest.raises(UnknownPermit, match="fly"):
        fill(state, wrong.accounts)
