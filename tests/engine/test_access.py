# SPDX-License-Identifier: GPL-3.0-or-later
"""Who calls and what he may do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from overkeep.engine.access import EVERYONE, OvirtAccess, login, logout
from overkeep.engine.api import ObjectKind
from overkeep.engine.cache import Cache
from overkeep.engine.errors import BadAnswer, EngineUnreachable, LoginRefused
from overkeep.errors import Unauthorized
from tests.clock import Clock

from .conftest import PASSWORD, USERNAME, Answer, Recorded

USER = (
    "<user id='u1'><user_name>ann@internal-authz</user_name>"
    "<groups><group id='g1'><name>ops</name></group></groups></user>"
)


def permission(role: str, *, user: str = "", group: str = "", on: str = "") -> str:
    who = f"<user id='{user}'/>" if user else f"<group id='{group}'/>"
    return f"<permission id='p'>{who}<role id='{role}'/>{on}</permission>"


def permissions(*listed: str) -> Answer:
    return Answer(f"<permissions>{''.join(listed)}</permissions>")


def permits(*names: str) -> Answer:
    listed = "".join(f"<permit id='1'><name>{name}</name></permit>" for name in names)
    return Answer(f"<permits>{listed}</permits>")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def access(recorded: Recorded, clock: Clock, tmp_path: Path) -> Iterator[OvirtAccess]:
    recorded.answers |= {
        "GET /users/u1": Answer(USER),
        "GET /users/u1/permissions": permissions(permission("r1", user="u1", on="<vm id='v1'/>")),
        "GET /roles/r1": Answer("<role id='r1'><name>UserVmManager</name></role>"),
        "GET /roles/r1/permits": permits("backup_disk", "run_vm"),
        "GET /roles/r2": Answer("<role id='r2'><name>DiskOperator</name></role>"),
        "GET /roles/r2/permits": permits("attach_disk"),
        "GET /roles/super": Answer("<role id='super'><name>SuperUser</name></role>"),
        "GET /roles/super/permits": permits("backup_disk", "create_vm", "delete_vm"),
        "GET /vms/v1/permissions": permissions(permission("r1", user="u1"), permission("r2", user="u2")),
        "GET /vms/v2/permissions": permissions(permission("r2", user="u2")),
    }
    recorded.tokens |= {"good", "other"}
    access = OvirtAccess(recorded.url, tmp_path / "ca.pem", clock=clock)
    yield access
    access.close()


def test_identity(access: OvirtAccess) -> None:
    found = access.authenticate("good")
    assert (found.user_id, found.name, found.admin) == ("u1", "ann@internal-authz", False)


@pytest.mark.parametrize("token", ["bad", "", "zwölf", "two\r\nX-Header: y"])
def test_unknown_tokens(access: OvirtAccess, recorded: Recorded, token: str) -> None:
    with pytest.raises(Unauthorized):
        access.authenticate(token)
    with pytest.raises(Unauthorized):
        access.permits(token, "v1")


def test_own_permits_count_and_those_of_others_do_not(access: OvirtAccess) -> None:
    assert access.permits("good", "v1") == {"backup_disk", "run_vm"}
    assert access.permits("good", "v2") == frozenset()


@pytest.mark.parametrize("group", ["g1", EVERYONE])
def test_permits_through_a_group(access: OvirtAccess, recorded: Recorded, group: str) -> None:
    recorded.answers["GET /vms/v2/permissions"] = permissions(permission("r2", group=group))
    assert access.permits("good", "v2") == {"attach_disk"}


def test_permits_through_a_group_that_is_known_by_permissions_only(access: OvirtAccess, recorded: Recorded) -> None:
    recorded.answers["GET /users/u1/permissions"] = permissions(permission("r2", group="g9"))
    recorded.answers["GET /vms/v2/permissions"] = permissions(permission("r2", group="g9"))
    assert access.permits("good", "v2") == {"attach_disk"}


def test_a_group_of_others(access: OvirtAccess, recorded: Recorded) -> None:
    recorded.answers["GET /vms/v2/permissions"] = permissions(permission("r2", group="g9"))
    assert access.permits("good", "v2") == frozenset()


def test_super_user(access: OvirtAccess, recorded: Recorded) -> None:
    recorded.answers["GET /permissions"] = permissions(permission("super", user="u1"), permission("r1", user="u2"))
    assert access.authenticate("good").admin
    assert access.permits("good", "v2") == {"backup_disk", "create_vm", "delete_vm"}
    assert access.permits("good", "v9") == frozenset()  # no such VM


def test_super_user_on_something_that_is_not_named_is_no_administrator(access: OvirtAccess, recorded: Recorded) -> None:
    """The Manager names no object for permissions on networks; they look like permissions on the system."""
    recorded.answers["GET /users/u1/permissions"] = permissions(permission("super", user="u1"))
    assert not access.authenticate("good").admin
    assert access.permits("good", "v2") == frozenset()


def test_another_system_role_is_no_administrator(access: OvirtAccess, recorded: Recorded) -> None:
    recorded.answers["GET /permissions"] = permissions(permission("r1", user="u1"), permission("super", user="u2"))
    assert not access.authenticate("good").admin


@pytest.mark.parametrize(
    ("kind", "collection"), [(ObjectKind.CLUSTER, "clusters"), (ObjectKind.STORAGE_DOMAIN, "storagedomains")]
)
def test_permits_on_other_objects(
    access: OvirtAccess, recorded: Recorded, clock: Clock, kind: ObjectKind, collection: str
) -> None:
    recorded.answers[f"GET /{collection}/v1/permissions"] = permissions(permission("r2", user="u1"))
    assert access.permits("good", "v1", of=kind) == {"attach_disk"}
    assert access.permits("good", "v1") == {"backup_disk", "run_vm"}  # a VM of the same id is another object
    before = len(recorded.seen)
    assert access.permits("good", "v1", of=kind) == {"attach_disk"}
    assert len(recorded.seen) == before
    assert access.permits("good", "v2", of=kind) == frozenset()  # no such object


@pytest.mark.parametrize("status", [400, 403, 404])
def test_what_a_user_may_not_see_counts_as_absent(access: OvirtAccess, recorded: Recorded, status: int) -> None:
    for path in ("/users/u1", "/users/u1/permissions", "/permissions", "/vms/v1/permissions"):
        recorded.answers[f"GET {path}"] = Answer("<fault/>", status=status)
    assert access.authenticate("good").name == "u1"
    assert access.permits("good", "v1") == frozenset()


@pytest.mark.parametrize("vm_id", ["../users/u1", "", "v1/../v2", "v1?follow=x"])
def test_an_id_cannot_lead_elsewhere(access: OvirtAccess, recorded: Recorded, vm_id: str) -> None:
    access.authenticate("good")
    before = len(recorded.seen)
    assert access.permits("good", vm_id) == frozenset()
    assert len(recorded.seen) == before


def test_the_vms_that_a_caller_is_shown(access: OvirtAccess, recorded: Recorded, clock: Clock) -> None:
    recorded.answers["GET /vms"] = Answer("<vms><vm id='v1'><name>web</name></vm><vm id='v2'/></vms>")
    assert access.vms("good") == {"v1", "v2"}
    recorded.answers["GET /vms"] = Answer("<vms/>")
    assert access.vms("good") == {"v1", "v2"}, "kept for a while"
    assert access.vms("other") == frozenset(), "for one token only"
    clock.now = 31.0
    assert access.vms("good") == frozenset()
    with pytest.raises(Unauthorized):
        access.vms("bad")


def test_answers_are_kept_for_a_while(access: OvirtAccess, recorded: Recorded, clock: Clock) -> None:
    access.permits("good", "v1")
    before = len(recorded.seen)
    access.permits("good", "v1")
    access.authenticate("good")
    assert len(recorded.seen) == before
    recorded.tokens.discard("good")
    clock.now = 61
    with pytest.raises(Unauthorized):
        access.permits("good", "v1")


def test_permits_are_kept_for_one_token_only(access: OvirtAccess, recorded: Recorded) -> None:
    access.permits("good", "v1")
    recorded.answers["GET "] = Answer("<api><effective_user id='u2'/></api>")
    recorded.answers["GET /users/u2"] = Answer("<user id='u2'/>")
    assert access.permits("other", "v1") == {"attach_disk"}


def test_nothing_kept_holds_a_token(access: OvirtAccess) -> None:
    access.permits("good", "v1")
    assert "good" not in repr([vars(cache) for cache in (access._people, access._permits, access._roles)])


@pytest.mark.parametrize("body", ["", "{}", "<api/>", "<!DOCTYPE api><api/>"])
def test_bad_answers(access: OvirtAccess, recorded: Recorded, body: str) -> None:
    recorded.answers["GET "] = Answer(body)
    with pytest.raises(BadAnswer):
        access.authenticate("good")


def test_manager_down(access: OvirtAccess, recorded: Recorded) -> None:
    recorded.answers["GET "] = Answer("<html/>", status=503, kind="text/html")
    with pytest.raises(EngineUnreachable) as caught:
        access.authenticate("good")
    assert "good" not in caught.value.message


def test_a_fault_of_the_moment_is_not_taken_for_lacking_rights(access: OvirtAccess, recorded: Recorded) -> None:
    access.authenticate("good")
    recorded.answers["GET /vms/v1/permissions"] = Answer("<html/>", status=503, kind="text/html")
    with pytest.raises(EngineUnreachable):
        access.permits("good", "v1")
    recorded.answers["GET /vms/v1/permissions"] = permissions(permission("r1", user="u1"))
    assert access.permits("good", "v1") == {"backup_disk", "run_vm"}


def test_login_and_logout(recorded: Recorded, tmp_path: Path) -> None:
    token = login(recorded.url, tmp_path / "ca.pem", username=USERNAME, password=PASSWORD)
    assert token in recorded.tokens
    logout(recorded.url, tmp_path / "ca.pem", token=token)
    assert token not in recorded.tokens
    logout(recorded.url, tmp_path / "ca.pem", token=token)


def test_refused_login(recorded: Recorded, tmp_path: Path) -> None:
    with pytest.raises(LoginRefused) as caught:
        login(recorded.url, tmp_path / "ca.pem", username=USERNAME, password="guess-7")
    assert "guess-7" not in str(caught.value) + repr(caught.value.fields)


def test_the_cache_is_bounded_and_forgets() -> None:
    clock = Clock()
    cache: Cache[int, int] = Cache(10, 3, clock=clock)
    for number in range(5):
        assert cache.get(number, lambda n=number: n) == number
    assert len(cache) == 3
    assert cache.get(4, lambda: 40) == 4
    assert cache.get(0, lambda: 50) == 50
    clock.now = 10
    assert cache.get(4, lambda: 40) == 40
