# SPDX-License-Identifier: GPL-3.0-or-later
"""Permissions on objects, and of users and groups: given once, shown one by one, taken away by rules."""

from __future__ import annotations

from typing import Any

import ovirtsdk4
import pytest
from ovirtsdk4 import types

from ovirtlab.engine.seed import ADMIN_ID
from ovirtlab.engine.state import EVERYONE

ADMIN = types.User(id=ADMIN_ID)


def permission(role: str, **principal: Any) -> types.Permission:
    return types.Permission(role=types.Role(name=role), **principal)


def test_the_same_role_given_twice_is_one_permission(system: Any, lab: Any) -> None:
    service = system.vms_service().vm_service(lab.vm_id("web")).permissions_service()
    first = service.add(permission("UserVmManager", user=ADMIN))
    assert service.add(permission("UserVmManager", user=ADMIN)).id == first.id
    assert service.permission_service(first.id).get().user.id == ADMIN_ID
    service.permission_service(first.id).remove()
    with pytest.raises(ovirtsdk4.NotFoundError):
        service.permission_service(first.id).get()


PLACES = ("clusters", "data_centers", "disks", "hosts", "networks", "storage_domains", "templates", "vms",
          "vnic_profiles", "disk_profiles", "cpu_profiles", "mac_pools")  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
def test_every_kind_of_object_has_permissions(system: Any, place: str) -> None:
    collection = getattr(system, f"{place}_service")()
    service = collection.service(collection.list()[0].id).permissions_service()
    made = service.add(permission("UserRole", group=types.Group(id=EVERYONE)))
    assert service.permission_service(made.id).get().group.id == EVERYONE
    assert made.id in [item.id for item in service.list()]
    service.permission_service(made.id).remove()
    assert made.id not in [item.id for item in service.list()]


def test_a_user_is_given_a_role_on_an_object(system: Any, lab: Any) -> None:
    service = system.users_service().user_service(ADMIN_ID).permissions_service()
    with pytest.raises(ovirtsdk4.Error, match="required for add"):
        service.add(permission("UserRole"))
    made = service.add(permission("UserRole", vm=types.Vm(id=lab.vm_id("db"))))
    inside = system.vms_service().vm_service(lab.vm_id("db")).permissions_service()
    assert inside.permission_service(made.id).get().vm.id == lab.vm_id("db")
    service.permission_service(made.id).remove()
    assert made.id not in [item.id for item in inside.list()]


def test_the_last_super_user_stays(system: Any) -> None:
    service = system.permissions_service()
    (own,) = [item for item in service.list() if item.user and item.user.id == ADMIN_ID]
    with pytest.raises(ovirtsdk4.Error, match="The last user"):
        service.permission_service(own.id).remove()


def test_an_unknown_role_or_user_is_refused(system: Any, lab: Any) -> None:
    service = system.vms_service().vm_service(lab.vm_id("web")).permissions_service()
    with pytest.raises(ovirtsdk4.Error, match="The role does not exist"):
        service.add(permission("Wizard", user=ADMIN))
    with pytest.raises(ovirtsdk4.Error, match="user or group does not exist"):
        service.add(permission("UserRole", user=types.User(id=lab.vm_id("web"))))
