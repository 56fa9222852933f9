# SPDX-License-Identifier: GPL-3.0-or-later
"""Users other than the administrator: what they see, what they may do, and how a client finds out."""

from typing import Any

import ovirtsdk4 as sdk
import pytest
from ovirtsdk4 import types

from ovirtlab.engine.entities import Permission, User


def add_user(lab: Any, name: str, role: str, on: tuple[str, str]) -> None:
    state = lab.engine.state
    user = User(id=state.new_id(), name=name, domain="internal", password="pw")
    state.users[user.id] = user
    role_id = next(item.id for item in state.roles.values() if item.name == role)
    permission = Permission(id=state.new_id(), user_id=user.id, role_id=role_id, on=on)
    state.permissions[permission.id] = permission


@pytest.fixture
def user(lab: Any) -> Any:
    add_user(lab, "joe", "UserVmManager", ("vm", lab.vm_id("db")))
    connection = lab.connect("joe@internal", "pw")
    yield connection.system_service()
    connection.close()


def test_sees_only_what_is_theirs(user: Any) -> None:
    assert [vm.name for vm in user.vms_service().list()] == ["db"]
    assert [disk.alias for disk in user.disks_service().list()] == ["db_system"]
    assert [cluster.name for cluster in user.clusters_service().list()] == ["Default"]


def test_what_is_not_theirs_is_not_found(lab: Any, user: Any) -> None:
    for service in (
        user.vms_service().vm_service(lab.vm_id("web")),
        user.disks_service().disk_service(lab.disk_id("web_data")),
    ):
        with pytest.raises(sdk.NotFoundError):
            service.get()


def test_may_act_on_their_vm_and_no_more(lab: Any, user: Any) -> None:
    user.vms_service().vm_service(lab.vm_id("db")).start()
    with pytest.raises(sdk.AuthError, match="User is not authorized to perform this action") as error:
        user.tags_service().add(types.Tag(name="mine"))
    assert error.value.code == 403
    assert "[User is not authorized" in error.value.fault.detail


def test_entry_point_names_the_user(lab: Any, user: Any, system: Any) -> None:
    api = user.get()
    assert api.summary is None
    found = user.users_service().user_service(api.authenticated_user.id).get()
    assert (found.principal, found.user_name) == ("joe", "joe@internal-authz")
    assert system.get().summary.vms.total == 2


def test_permissions_of_a_vm_lead_to_permits(lab: Any, user: Any, system: Any) -> None:
    permissions = system.vms_service().vm_service(lab.vm_id("db")).permissions_service().list(follow="role.permits")
    by_user = {item.user.id: item for item in permissions}
    mine = by_user[user.get().authenticated_user.id]
    assert "backup_disk" in {permit.name for permit in mine.role.permits}
    assert mine.vm.id == lab.vm_id("db")
    admin = by_user[system.get().authenticated_user.id]
    assert admin.vm.id == lab.vm_id("db")  # inherited from the system, shown as of the VM
    assert admin.role.name == "SuperUser"


def test_role_for_a_backup_account(lab: Any, system: Any) -> None:
    names = ["backup_disk", "edit_disk_properties", "create_disk", "manipulate_vm_snapshots"]
    role = system.roles_service().add(
        types.Role(name="Backup", administrative=True, permits=[types.Permit(name=name) for name in names])
    )
    add_user(lab, "backup", "ReadOnlyAdmin", ("vm", lab.vm_id("db")))
    account = next(item for item in lab.engine.state.users.values() if item.name == "backup")
    clusters = system.clusters_service()
    cluster = clusters.cluster_service(clusters.list()[0].id)
    cluster.permissions_service().add(types.Permission(role=types.Role(id=role.id), user=types.User(id=account.id)))
    connection = lab.connect("backup@internal", "pw")
    service = connection.system_service()
    assert len(service.vms_service().list()) == 2  # an administrative role gives the unfiltered view
    with pytest.raises(sdk.AuthError):
        service.vms_service().vm_service(lab.vm_id("web")).stop()
    service.disks_service().disk_service(lab.disk_id("web_data")).update(types.Disk(description="kept"))
    connection.close()


def test_filter_gives_an_administrator_the_users_view(lab: Any, user: Any) -> None:
    connection = lab.connect()
    assert len(connection.system_service().vms_service().list(filter=True)) == 2
    connection.close()


def test_unknown_permit_and_double_role(system: Any) -> None:
    with pytest.raises(sdk.Error, match="does not exist"):
        system.roles_service().add(types.Role(name="Odd", permits=[types.Permit(name="fly")]))
    with pytest.raises(sdk.Error, match="already in use"):
        system.roles_service().add(types.Role(name="SuperUser", permits=[types.Permit(name="login")]))
