# SPDX-License-Identifier: GPL-3.0-or-later
"""Users other than the administrator: what they see, what they may do, and how a client finds out."""

from typing import Any

import ovirtsdk4 as sdk
import pytest
from ovirtsdk4 import types

from ovirtlab.engine.entities.people import Permission, User


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
    with pytest.raises(sdk.Error, match="fly is not a valid permit ID"):
        system.roles_service().add(types.Role(name="Odd", permits=[types.Permit(name="fly")]))
    with pytest.raises(sdk.Error, match="already in use"):
        system.roles_service().add(types.Role(name="SuperUser", permits=[types.Permit(name="login")]))


def test_roles_are_those_of_every_engine(system: Any) -> None:
    """Their ids, kinds and permits as a fresh 4.5 engine lists them."""
    roles = {role.name: role for role in system.roles_service().list(follow="permits")}
    assert len(roles) == 37
    manager, disks = roles["UserVmManager"], roles["DiskOperator"]
    assert (manager.id, manager.administrative) == ("def00006-0000-0000-0000-def000000006", False)
    assert {"backup_disk", "manipulate_vm_snapshots", "create_disk"} <= {item.name for item in manager.permits}
    assert "migrate_vm" not in {item.name for item in manager.permits}
    assert "configure_disk_storage" not in {item.name for item in disks.permits}
    assert {item.name: item.administrative for item in disks.permits}["backup_disk"]
    assert not roles["ExternalEventsCreator"].administrative
    assert {item.name for item in roles["ExternalEventsCreator"].permits} == {"inject_external_events"}


def test_a_role_is_changed_and_its_permits_come_and_go(lab: Any, system: Any) -> None:
    roles = system.roles_service()
    made = roles.add(types.Role(name="Watch", administrative=True, permits=[types.Permit(name="run_vm")]))
    role = roles.role_service(made.id)
    assert (made.mutable, {item.name for item in role.permits_service().list()}) == (True, {"run_vm", "login"})
    assert role.update(types.Role(name="Watcher", description="sees")).name == "Watcher"
    permits = role.permits_service()
    added = permits.add(types.Permit(name="backup_disk"))
    assert (added.id, added.administrative) == ("1110", True)
    with pytest.raises(sdk.Error, match="already attached to Role") as twice:
        permits.add(types.Permit(id="1110"))
    assert twice.value.code == 409
    permits.permit_service("1110").remove()
    with pytest.raises(sdk.Error, match="not attached to this Role") as gone:
        permits.permit_service("1110").remove()
    assert gone.value.code == 400
    with pytest.raises(sdk.NotFoundError):
        permits.permit_service("4711").get()
    assert {864, 856, 860, 862} <= set(lab.codes())


def test_what_a_role_may_not_become(lab: Any, system: Any) -> None:
    roles = system.roles_service()
    fixed = roles.role_service(next(role.id for role in roles.list() if role.name == "UserRole"))
    for change in (
        lambda: fixed.update(types.Role(description="mine")),
        lambda: fixed.permits_service().add(types.Permit(name="migrate_vm")),
        lambda: fixed.permits_service().permit_service("22").remove(),
        fixed.remove,
    ):
        with pytest.raises(sdk.Error, match="The Role is Read-Only") as refused:
            change()
        assert refused.value.code == 409
    plain = roles.role_service(roles.add(types.Role(name="Plain", permits=[types.Permit(name="run_vm")])).id)
    with pytest.raises(sdk.Error, match="administrator's action group to a User Role"):
        plain.permits_service().add(types.Permit(name="backup_disk"))
    with pytest.raises(sdk.Error, match="Changing Role type is not allowed"):
        plain.update(types.Role(administrative=True))
    with pytest.raises(sdk.Error, match="name is already in use"):
        plain.update(types.Role(name="UserRole"))


def test_a_permit_given_to_a_role_counts_at_once(lab: Any, system: Any) -> None:
    add_user(lab, "runner", "ReadOnlyAdmin", ("vm", lab.vm_id("web")))
    connection = lab.connect("runner@internal", "pw")
    me = connection.system_service()
    roles = system.roles_service()
    role = roles.role_service(roles.add(types.Role(name="Runner", permits=[types.Permit(name="login")])).id)
    vm = system.vms_service().vm_service(lab.vm_id("web"))
    user = types.User(id=me.get().authenticated_user.id)
    vm.permissions_service().add(types.Permission(user=user, role=types.Role(id=role.get().id)))
    mine = me.vms_service().vm_service(lab.vm_id("web"))
    with pytest.raises(sdk.AuthError):
        mine.stop()
    role.permits_service().add(types.Permit(name="stop_vm"))
    mine.stop()
    lab.wait(lambda: vm.get().status == types.VmStatus.DOWN)
    connection.close()
