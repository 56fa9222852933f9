# SPDX-License-Identifier: GPL-3.0-or-later
"""Users and groups that the environment names: what each sees, may do, and is refused with."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from ovirtsdk4 import types

from ovirtlab.engine.accounts import UnknownRole, fill
from ovirtlab.engine.clock import Clock
from ovirtlab.engine.roles import predefined
from ovirtlab.engine.state import State
from ovirtlab.environment import BadEnvironment, parse

from .conftest import ENVIRONMENT, Lab, serve

PEOPLE = """
groups:
  - name: operators
    roles: [{role: UserVmManager, vm: db}]
users:
  - {name: tenant@internal, password: pw, roles: [{role: UserVmManager, vm: web}]}
  - {name: member@internal, password: pw, groups: [operators]}
  - {name: auditor@internal, password: pw, roles: [{role: ReadOnlyAdmin}]}
  - {name: maker@internal, password: pw, roles: [{role: DiskCreator, storage_domain: data2}]}
  - {name: nobody@internal, password: pw}
"""
JSON = {"Accept": "application/json"}
REFUSED = "[User is not authorized to perform this action.]"
EVERYONE = "eee00000-0000-0000-0000-123456789eee"


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with serve(tmp_path_factory.mktemp("people"), parse(ENVIRONMENT + PEOPLE, origin="test")) as running:
        yield running


def client(lab: Lab, name: str) -> httpx.Client:
    password = "secret" if name == "admin" else "pw"
    base = f"{lab.url}/ovirt-engine/api/"
    return httpx.Client(base_url=base, auth=(f"{name}@internal", password), headers=JSON)


def names(http: httpx.Client, collection: str) -> list[str]:
    document = http.get(collection).raise_for_status().json()
    return sorted(item["name"] for items in document.values() for item in items)


@pytest.mark.parametrize(
    ("who", "vms", "domains"),
    [
        ("admin", ["db", "web"], ["data", "data2"]),
        ("auditor", ["db", "web"], ["data", "data2"]),
        ("tenant", ["web"], []),
        ("member", ["db"], []),
        ("maker", [], ["data2"]),
    ],
)
def test_each_sees_their_own(people: Lab, who: str, vms: list[str], domains: list[str]) -> None:
    with client(people, who) as http:
        assert names(http, "vms") == vms
        assert names(http, "storagedomains") == domains


def test_a_role_that_shows_no_children_shows_no_disks_of_its_domain(people: Lab) -> None:
    with client(people, "maker") as http:
        assert names(http, "disks") == []
        other = people.disk_id("web_data")
        assert http.get(f"disks/{other}").status_code == 404


def test_who_may_create_somewhere_sees_the_places_there(people: Lab) -> None:
    (center,) = people.engine.state.data_centers
    connection = people.connect()
    service = connection.system_service().data_centers_service().data_center_service(center).permissions_service()
    user = next(item.id for item in people.engine.state.users.values() if item.name == "maker")
    added = service.add(types.Permission(role=types.Role(name="VmCreator"), user=types.User(id=user)))
    with client(people, "maker") as http:
        assert names(http, "clusters") == ["Default"]
        assert names(http, "vms") == []
    service.permission_service(added.id).remove()
    connection.close()


def test_nobody_has_a_token_and_no_session(people: Lab) -> None:
    form = {"grant_type": "password", "scope": "ovirt-app-api", "username": "nobody@internal", "password": "pw"}
    granted = httpx.post(f"{people.url}/ovirt-engine/sso/oauth/token", data=form, headers=JSON)
    bearer = {"Authorization": f"Bearer {granted.json()['access_token']}"}
    assert httpx.get(f"{people.url}/ovirt-engine/api/vms", headers=bearer).status_code == 401
    with client(people, "nobody") as http:
        assert http.get("vms").status_code == 401


def test_single_objects_out_of_sight_are_not_found(people: Lab) -> None:
    state = people.engine.state
    host, domain = next(iter(state.hosts)), next(iter(state.storage_domains))
    cluster, network = next(iter(state.clusters)), next(iter(state.networks))
    with client(people, "tenant") as http:
        for path in (f"hosts/{host}", f"storagedomains/{domain}", f"vms/{people.vm_id('db')}/permissions"):
            assert http.get(path).status_code == 404, path
        for path in (f"clusters/{cluster}", f"networks/{network}"):  # their VM is in both
            assert http.get(path).status_code == 200, path
    with client(people, "maker") as http:
        assert http.get(f"networks/{network}").status_code == 404


MUTATIONS = [
    ("POST", "vms/{vm}/start", {}),
    ("POST", "vms/{vm}/stop", {}),
    ("POST", "vms/{vm}/shutdown", {}),
    ("POST", "vms/{vm}/reboot", {}),
    ("PUT", "vms/{vm}", {"description": "x"}),
    ("DELETE", "vms/{vm}", None),
    ("POST", "vms/{vm}/nics", {"name": "n"}),
    ("POST", "vms/{vm}/backups", {"disks": {"disk": [{"id": "{disk}"}]}}),
    ("POST", "vms/{vm}/diskattachments", {"disk": {"id": "{disk}"}, "interface": "virtio"}),
    ("POST", "vms/{vm}/permissions", {"role": {"name": "UserRole"}, "group": {"id": EVERYONE}}),
    ("POST", "vms/{vm}/tags", {"name": "t"}),
    ("PUT", "disks/{disk}", {"description": "x"}),
    ("DELETE", "disks/{disk}", None),
    ("POST", "imagetransfers", {"disk": {"id": "{disk}"}, "direction": "download"}),
    ("POST", "tags", {"name": "t"}),
    ("POST", "events", {"origin": "x", "severity": "normal", "custom_id": "1", "description": "x"}),
    ("POST", "roles", {"name": "r", "permits": {"permit": [{"name": "login"}]}}),
    ("POST", "permissions", {"role": {"name": "UserRole"}, "group": {"id": EVERYONE}}),
]


@pytest.mark.parametrize(("method", "path", "body"), MUTATIONS, ids=[f"{item[0]} {item[1]}" for item in MUTATIONS])
def test_who_may_only_look_is_refused_every_change(
    people: Lab, method: str, path: str, body: dict[str, object] | None
) -> None:
    ids = {"{vm}": people.vm_id("web"), "{disk}": people.disk_id("web_data")}
    text = httpx.Request("POST", "http://x", json=body).content.decode() if body is not None else None
    for mark, key in ids.items():
        path = path.replace(mark, key)
        text = text.replace(mark, key) if text else text
    with client(people, "auditor") as http:
        answer = http.request(method, path, content=text, headers={"Content-Type": "application/json"})
    document = answer.json()
    assert answer.status_code == 403
    assert document.get("fault", document) == {"detail": REFUSED, "reason": "Operation Failed"}


def test_a_member_has_the_groups_roles_and_clients_can_tell_why(people: Lab) -> None:
    connection = people.connect("member@internal", "pw")
    system = connection.system_service()
    me = system.get().authenticated_user.id
    (group,) = system.users_service().user_service(me).groups_service().list()
    assert group.name == "operators"
    vm = system.vms_service().vm_service(people.vm_id("db"))
    given = next(item for item in vm.permissions_service().list(follow="role.permits") if item.group)
    assert (given.group.id, given.user, given.vm.id) == (group.id, None, people.vm_id("db"))
    assert "backup_disk" in {permit.name for permit in given.role.permits}
    vm.update(types.Vm(description="by a member"))
    connection.close()


def test_a_permission_can_be_given_to_a_group_and_taken_again(people: Lab) -> None:
    connection = people.connect()
    system = connection.system_service()
    group = next(item for item in system.groups_service().list() if item.name == "operators")
    service = system.vms_service().vm_service(people.vm_id("web")).permissions_service()
    added = service.add(types.Permission(role=types.Role(name="UserRole"), group=types.Group(id=group.id)))
    with client(people, "member") as http:
        assert names(http, "vms") == ["db", "web"]
        service.permission_service(added.id).remove()
        assert names(http, "vms") == ["db"]
    connection.close()


def test_a_user_who_asks_for_the_unfiltered_view_is_refused(people: Lab) -> None:
    with client(people, "tenant") as http:
        answer = http.get("vms", headers={"Filter": "false"})
    assert answer.status_code == 403
    assert answer.json()["detail"] == "Query execution failed due to insufficient permissions."


def test_users_see_those_they_share_objects_with(people: Lab) -> None:
    with client(people, "tenant") as http:
        users = [item["user_name"] for item in http.get("users").json()["user"]]
        assert users == ["tenant@internal-authz"]
        assert names(http, "groups") == ["Everyone"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("users: [{name: joe}]", "does not match"),
        ("users: [{name: joe@internal, groups: [none]}]", "not one of the groups"),
        ("users: [{name: joe@internal, roles: [{role: UserRole, vm: none}]}]", "choose one of: web, db"),
        ("users: [{name: joe@internal, roles: [{role: UserRole, vm: db, host: host1}]}]", "one entry for each"),
        ("users: [{name: joe@internal, roles: [{vm: db}]}]", "`role` is missing"),
        ("users: [{name: admin@internal}]", "more than once"),
        ("groups: [{name: a}, {name: a}]", "more than once"),
        ("sso_clients: [{secret: x}]", "`client_id` is missing"),
    ],
)
def test_wrong_accounts_are_refused_with_their_place(text: str, words: str) -> None:
    with pytest.raises(BadEnvironment, match=words):
        parse(f"{ENVIRONMENT}{text}\n", origin="test")


def test_an_unknown_role_is_named() -> None:
    wrong = parse(f"{ENVIRONMENT}users: [{{name: joe@internal, roles: [{{role: Boss}}]}}]\n", origin="test")
    state = State(Clock())
    state.roles = {role.id: role for role in predefined()}
    with pytest.raises(UnknownRole, match="Boss is not known; choose one of: SuperUser"):
        fill(state, wrong.accounts)
