# SPDX-License-Identifier: GPL-3.0-or-later
"""The directory behind the engine: whom it knows, and who is added to the engine from it and removed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import ovirtsdk4 as sdk
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from ovirtsdk4 import types

from ovirtlab.environment import BadEnvironment, parse

from .conftest import ENVIRONMENT, Lab, serve

PEOPLE = """
groups:
  - {name: known, roles: [{role: UserVmManager, vm: db}]}
  - {name: strangers, added: false}
users:
  - {name: guest@internal, password: pw, added: false}
  - {name: member@internal, password: pw, groups: [known], added: false}
  - {name: there@internal, password: pw}
"""


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with serve(tmp_path, parse(ENVIRONMENT + PEOPLE, origin="test")) as running:
        yield running


def names(users: list[Any]) -> set[str]:
    return {user.user_name for user in users}


def test_the_directory_knows_more_than_the_engine(lab: Lab, system: Any) -> None:
    assert names(system.users_service().list()) == {"admin@internal-authz", "there@internal-authz"}
    (domain,) = system.domains_service().list()
    assert domain.name == "internal-authz"
    of_domain = system.domains_service().domain_service(domain.id)
    assert of_domain.get().name == domain.name
    known = of_domain.users_service().list()
    assert {user.principal for user in known} == {"admin", "there", "guest", "member"}
    (found,) = of_domain.users_service().list(search="username=guest")
    assert of_domain.users_service().user_service(found.id).get().principal == "guest"
    groups = of_domain.groups_service().list()
    assert {group.name for group in groups} == {"known", "strangers"}
    assert of_domain.groups_service().group_service(groups[0].id).get().name == groups[0].name


def test_a_user_is_added_given_a_role_and_removed(lab: Lab, system: Any) -> None:
    users = system.users_service()
    domain = types.Domain(name="internal-authz")
    made = users.add(types.User(user_name="guest", domain=domain))
    assert users.add(types.User(user_name="guest@internal-authz")).id == made.id
    permissions = system.vms_service().vm_service(lab.vm_id("db")).permissions_service()
    permissions.add(types.Permission(user=types.User(id=made.id), role=types.Role(name="UserRole")))
    with httpx.Client(base_url=f"{lab.url}/ovirt-engine/api/", auth=("guest@internal", "pw")) as guest:
        assert guest.get("vms").text.count("<vm ") == 1
        users.user_service(made.id).remove()
        assert guest.get("vms").status_code == 401  # the permissions went with the user
    assert all(item.user_id != made.id for item in lab.engine.state.permissions.values())
    assert {149, 325} <= set(lab.codes())
    assert users.add(types.User(user_name="guest", domain=domain)).id == made.id


def test_who_cannot_be_added_or_removed(lab: Lab, system: Any) -> None:
    users = system.users_service()
    domain = types.Domain(name="internal-authz")
    with pytest.raises(sdk.Error, match="No such user: nobody in domain internal-authz") as unknown:
        users.add(types.User(user_name="nobody", domain=domain))
    assert unknown.value.code == 400
    with pytest.raises(sdk.Error, match=r"domain\.id\|name"):
        users.add(types.User(user_name="guest"))
    with pytest.raises(sdk.Error, match="User is currently logged in") as himself:
        users.user_service(system.get().authenticated_user.id).remove()
    assert himself.value.code == 409
    groups = system.groups_service()
    with pytest.raises(sdk.Error, match="No such group: x in directory internal-authz"):
        groups.add(types.Group(name="x", domain=domain))
    everyone = next(group for group in groups.list() if group.name == "Everyone")
    with pytest.raises(sdk.Error, match="built-in group"):
        groups.group_service(everyone.id).remove()


def test_a_group_is_added_and_removed_with_its_permissions(lab: Lab, system: Any) -> None:
    groups = system.groups_service()
    made = groups.add(types.Group(name="strangers", domain=types.Domain(name="internal-authz")))
    permissions = system.vms_service().vm_service(lab.vm_id("db")).permissions_service()
    permissions.add(types.Permission(group=types.Group(id=made.id), role=types.Role(name="UserRole")))
    groups.group_service(made.id).remove()
    assert all(item.group is None or item.group.id != made.id for item in permissions.list())


def test_a_member_of_a_group_becomes_the_engines_user_by_logging_in(lab: Lab, system: Any) -> None:
    """Whom the engine does not know has the roles of a group all the same; without any there is no session."""
    connection = lab.connect("member@internal", "pw")
    assert [vm.name for vm in connection.system_service().vms_service().list()] == ["db"]
    connection.close()
    assert "member@internal-authz" in names(system.users_service().list())
    answer = httpx.get(f"{lab.url}/ovirt-engine/api/vms", auth=("guest@internal", "pw"))
    assert answer.status_code == 401
    assert "guest@internal-authz" not in names(system.users_service().list())


def public_key() -> str:
    public = Ed25519PrivateKey.generate().public_key()
    return public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode() + " me@example.com"


def test_a_user_has_one_public_key(lab: Lab, system: Any) -> None:
    user = next(item for item in system.users_service().list() if item.principal == "there")
    keys = system.users_service().user_service(user.id).ssh_public_keys_service()
    assert keys.list() == []
    first, second = public_key(), public_key()
    made = keys.add(types.SshPublicKey(content=first))
    assert keys.key_service(made.id).get().content == first
    with pytest.raises(sdk.Error, match="Multiple public SSH keys are not supported"):
        keys.add(types.SshPublicKey(content=second))
    changed = keys.key_service(made.id).update(types.SshPublicKey(content=second))
    assert [(key.id, key.content) for key in keys.list()] == [(changed.id, second)]
    with pytest.raises(sdk.Error, match="The given SSH public key is invalid") as wrong:
        keys.key_service(changed.id).update(types.SshPublicKey(content="ssh-rsa nonsense"))
    assert wrong.value.code == 400
    keys.key_service(changed.id).remove()
    assert keys.list() == []


def test_roles_are_for_those_whom_the_engine_knows() -> None:
    text = f"{ENVIRONMENT}users: [{{name: joe@internal, added: false, roles: [{{role: UserRole, vm: web}}]}}]\n"
    with pytest.raises(BadEnvironment, match="are given by the Engine"):
        parse(text, origin="test")
