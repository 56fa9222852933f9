# SPDX-License-Identifier: GPL-3.0-or-later
"""The conventions of the REST interface, one by one, with raw HTTP."""

from __future__ import annotations

import uuid
from typing import Any
from xml.etree import ElementTree as ET

import httpx
import pytest

JSON = {"Accept": "application/json"}
XML = {"Content-Type": "application/xml"}
DISK = (
    b"<disk><alias>d</alias><provisioned_size>1048576</provisioned_size><format>cow</format>"
    b"<storage_domains><storage_domain><name>data</name></storage_domain></storage_domains></disk>"
)


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", "application/xml"),
        ("*/*", "application/xml"),
        ("application/xml", "application/xml"),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "application/xml"),
        ("application/json", "application/json"),
        ("application/json;charset=UTF-8", "application/json"),
        ("application/xml;q=0.5, application/json", "application/json"),
        ("application/json, */*", "application/json"),
        ("application/json;q=0, application/xml", "application/xml"),
    ],
)
def test_the_form_is_what_the_client_prefers(http: httpx.Client, accept: str, kind: str) -> None:
    answer = http.get("vms", headers={"Accept": accept})
    assert answer.status_code == 200
    assert answer.headers["content-type"].partition(";")[0] == kind


def test_the_form_may_be_a_parameter(http: httpx.Client) -> None:
    assert "vm" in http.get("vms", params={"accept": "application/json"}).json()


def test_forms_there_are_not(http: httpx.Client) -> None:
    assert http.get("vms", headers={"Accept": "text/csv"}).status_code == 406
    for kind in ("application/x-www-form-urlencoded", "text/plain"):
        assert (
            http.post("tags", content=b"<tag><name>t</name></tag>", headers={"Content-Type": kind}).status_code == 415
        )
    assert http.get("tags", params={"search": "name=t"}, headers=JSON).json().get("tag", []) == []


def test_methods_there_are_not(http: httpx.Client) -> None:
    refused = http.put("vms", content=b"<vm/>", headers=XML)
    assert (refused.status_code, refused.content) == (405, b"")
    assert refused.headers["allow"] == "GET, HEAD, OPTIONS, POST"
    assert http.patch("vms").status_code == 405
    assert http.put("nonsense", content=b"<vm", headers=XML).status_code == 404


def test_head_and_options(lab: Any, http: httpx.Client) -> None:
    head, get = http.head("vms"), http.get("vms")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == get.headers["content-length"]
    options = http.options(f"vms/{lab.vm_id('db')}")
    assert options.status_code == 200
    assert options.headers["allow"] == "DELETE, GET, HEAD, OPTIONS, PUT"
    assert httpx.options(f"{lab.url}/ovirt-engine/api/vms").status_code == 401


def test_versions(http: httpx.Client) -> None:
    assert http.get("v4/vms", headers=JSON).json() == http.get("vms", headers=JSON).json()
    assert http.get("v4").status_code == 200
    assert http.get("vms", headers={"Version": "4"}).status_code == 200
    assert http.get("vms", headers={"Version": "3"}).status_code == 400
    assert http.get("v3/vms").status_code == 400


def test_malformed_ids_and_bodies_are_worded_as_the_engine_does(lab: Any, http: httpx.Client) -> None:
    named = {"name": "v", "cluster": {"name": "Default"}, "template": {"name": "Blank"}}
    fault = http.post("vms", json={"id": "x", **named}, headers=JSON)
    assert fault.status_code == 400
    assert fault.json() == {"detail": "Invalid UUID string: x", "reason": "Operation failed"}
    for wrong in ("x", uuid.uuid4().hex, "x/diskattachments"):
        assert http.get(f"vms/{wrong}").status_code == 404
    broken = http.post("vms", content=b'{"name": ', headers={**JSON, "Content-Type": "application/json"})
    assert broken.status_code == 400
    assert broken.json()["reason"] == "Request syntactically incorrect."
    assert broken.json()["detail"].endswith("/ovirt-engine/apidoc#services/vms/methods/add")
    changed = http.put(f"datacenters/{uuid.uuid4()}", content=b"<data_center", headers=XML)
    assert ET.fromstring(changed.content).findtext("detail", "").endswith("#services/data_center/methods/update")


@pytest.mark.parametrize(
    "query", ["max=x", "case_sensitive=perhaps&search=name%3Dweb", "all_content=maybe", "filter=?"]
)
def test_parameters_that_make_no_sense_are_ignored(http: httpx.Client, query: str) -> None:
    assert http.get(f"vms?{query}").status_code == 200


def test_the_first_of_several_parameters_counts(http: httpx.Client) -> None:
    assert [vm["name"] for vm in http.get("vms?search=name%3Ddb&search=name%3Dweb", headers=JSON).json()["vm"]] == [
        "db"
    ]


def test_a_made_up_correlation_id_is_a_uuid(http: httpx.Client) -> None:
    made_up = http.get("vms").headers["correlation-id"]
    assert str(uuid.UUID(made_up)) == made_up


@pytest.mark.parametrize("header", ["Expect", "X-Ovirt-Expect"])
def test_a_client_waits_for_what_it_makes(http: httpx.Client, header: str) -> None:
    done = http.post("disks", content=DISK, headers={**XML, **JSON, header: "201-created"})
    assert done.status_code == 201
    assert done.json()["status"] == "ok"
    assert done.headers["location"].endswith(f"/ovirt-engine/api/disks/{done.json()['id']}")


def test_a_client_that_does_not_wait_is_told_where_to_look(lab: Any, http: httpx.Client) -> None:
    made = http.post("disks", content=DISK, headers={**XML, **JSON}).json()
    assert made["creation_status"] == "pending"
    [link] = [link["href"] for link in made["link"] if link["rel"] == "creation_status"]
    lab.wait(lambda: http.get(f"{lab.url}{link}", headers=JSON).json()["status"] == "complete")
    assert http.get(made["href"].removeprefix("/ovirt-engine/api/"), headers=JSON).json()["status"] == "ok"
    assert ET.fromstring(http.get(f"{lab.url}{link}").content).tag == "creation"


@pytest.mark.parametrize(
    ("query", "headers", "body", "status"),
    [
        ("?async=true", {}, {}, "in_progress"),
        (";async=true", {}, {}, "in_progress"),
        ("", {"Expect": "202-accepted"}, {}, "in_progress"),
        ("", {"X-Ovirt-Expect": "202-accepted"}, {}, "in_progress"),
        ("", {}, {"async": "true"}, "pending"),
        ("", {}, {"async": True}, "pending"),
        ("", {}, {}, "complete"),
    ],
)
def test_actions_wait_unless_told_not_to(
    lab: Any, http: httpx.Client, query: str, headers: dict[str, str], body: dict[str, Any], status: str
) -> None:
    answer = http.post(f"vms/{lab.vm_id('web')}/stop{query}", json=body, headers={**JSON, **headers})
    assert answer.json()["status"] == status
    assert answer.status_code == (200 if status == "complete" else 202)
    job = answer.json()["job"]
    assert http.get(f"{lab.url}{job['href']}", headers=JSON).json()["description"] == "Stopping VM web"
    lab.wait(lambda: lab.engine.state.vms[lab.vm_id("web")].status == "down")


def test_removals_are_answered_with_an_action(http: httpx.Client) -> None:
    tag = http.post("tags", json={"name": "t"}, headers=JSON).json()
    removed = http.delete(f"tags/{tag['id']}", headers=JSON)
    assert (removed.status_code, removed.json()) == (200, {"status": "complete"})
    assert (http.delete(f"tags/{tag['id']}").status_code, http.delete(f"tags/{tag['id']}").content) == (404, b"")


def test_what_is_followed_has_its_usual_name(lab: Any, http: httpx.Client) -> None:
    path = f"vms/{lab.vm_id('web')}"
    for wanted in ("disk_attachments.disk", "diskattachments.Disk", "DiskAttachments.disk, nics"):
        vm = http.get(path, params={"follow": wanted}, headers=JSON).json()
        assert vm["disk_attachments"]["disk_attachment"][0]["disk"]["alias"] == "web_system"
    assert http.get(path, params={"follow": "watchdogs,snapshots.disks"}, headers=JSON).json()["watchdogs"] == {}


@pytest.mark.parametrize(
    ("path", "search", "found"),
    [
        ("vms", "created_by_user_id=fdfc627c-d875-11e0-90f0-83df133b58cc and name=web", 1),
        ("vms", "compatibility_level=4.7", 2),
        ("vms", "has_illegal_images=false and fqdn!=x sortby guaranteed_memory", 2),
        ("hosts", "migrating_vms=0 and active_vms>=1", 1),
        ("storagedomains", "free_size>1000 and used_size<1 and backup=false", 2),
        ("datacenters", "compatibility_version=4.7", 1),
        ("disks", "allocation_policy=thin and actual_size<1", 3),
        ("instancetypes", "name=Small", 1),
        ("users", "directory=internal-authz", 1),
        ("events", "time<yesterday", 0),
        ("events", "event_vm=web and usrid=x", 0),
    ],
)
def test_searches_by_the_words_of_the_engine(http: httpx.Client, path: str, search: str, found: int) -> None:
    answer = http.get(path, params={"search": search}, headers=JSON)
    assert answer.status_code == 200, answer.text
    [(_, members)] = list(answer.json().items()) or [("", [])]
    assert len(members) == found


def test_events_name_what_they_are_about(lab: Any, http: httpx.Client) -> None:
    http.put(f"vms/{lab.vm_id('db')}", json={"comment": "x"})
    event = http.get("events", params={"search": "event_vm=db sortby time desc", "max": "1"}, headers=JSON).json()
    [found] = event["event"]
    assert (found["vm"]["name"], found["vm"]["id"]) == ("db", lab.vm_id("db"))
    assert found["user"]["name"] == "admin@internal-authz"


def test_objects_are_reached_by_every_list_they_are_in(lab: Any, http: httpx.Client) -> None:
    [center] = http.get("datacenters", headers=JSON).json()["data_center"]
    [cluster] = http.get(f"datacenters/{center['id']}/clusters", headers=JSON).json()["cluster"]
    by_list = http.get(f"datacenters/{center['id']}/clusters/{cluster['id']}", headers=JSON)
    assert by_list.json()["href"] == f"/ovirt-engine/api/clusters/{cluster['id']}"
    below = http.get(f"datacenters/{center['id']}/clusters/{cluster['id']}/networks", headers=JSON)
    assert [item["name"] for item in below.json()["network"]] == ["ovirtmgmt"]
    nowhere = http.get(f"datacenters/{center['id']}/clusters/{lab.vm_id('web')}")
    assert (nowhere.status_code, nowhere.content) == (404, b"")
    [profile] = http.get(f"clusters/{cluster['id']}/cpuprofiles", headers=JSON).json()["cpu_profile"]
    assert (
        http.get(f"datacenters/{center['id']}/clusters/{cluster['id']}/cpuprofiles/{profile['id']}").status_code == 200
    )
    assert http.get(f"datacenters/{center['id']}/clusters/{cluster['id']}/nonsense").status_code == 404
    assert http.delete(f"datacenters/{center['id']}/clusters/{cluster['id']}").status_code == 404


def test_what_lies_on_a_domain(lab: Any, http: httpx.Client) -> None:
    data, data2 = http.get("storagedomains", headers=JSON).json()["storage_domain"]
    assert [vm["name"] for vm in http.get(f"storagedomains/{data['id']}/vms", headers=JSON).json()["vm"]] == [
        "web",
        "db",
    ]
    assert http.get(f"storagedomains/{data['id']}/vms?unregistered=true", headers=JSON).json() == {}
    assert http.get(f"storagedomains/{data2['id']}/vms", headers=JSON).json() == {}
    [connection] = http.get(f"storagedomains/{data['id']}/storageconnections", headers=JSON).json()[
        "storage_connection"
    ]
    assert (connection["path"], connection["type"]) == ("/data", "nfs")
    assert len(http.get("storageconnections", headers=JSON).json()["storage_connection"]) == 2


def test_lists_of_nothing_are_of_something_that_exists(http: httpx.Client) -> None:
    for path in ("hosts/{}/hooks", "clusters/{}/glustervolumes", "vms/{}/sessions", "templates/{}/nics"):
        assert http.get(path.format(uuid.uuid4())).status_code == 404


def test_one_host_manages_the_storage(lab: Any, http: httpx.Client) -> None:
    def managers() -> list[str]:
        hosts = http.get("hosts", headers=JSON).json()["host"]
        return [host["name"] for host in hosts if host["spm"]["status"] == "spm"]

    host = http.get("hosts", headers=JSON).json()["host"][0]
    assert (host["version"]["major"], host["version"]["minor"], host["cpu"]["speed"]) == ("4", "50", 2200)
    assert managers() == ["host1"]
    lab.engine.state.hosts[lab.hosts[0].id].status = "maintenance"
    assert managers() == ["host2"]


def test_services_need_no_login(lab: Any) -> None:
    base = f"{lab.url}/ovirt-engine/services"
    health = httpx.get(f"{base}/health")
    assert health.text == "DB Up!Welcome to Health Status!"
    assert health.headers["content-type"].startswith("text/html")
    assert httpx.get(f"{base}/pki-resource", params={"resource": "ca-certificate"}).status_code == 200
    with httpx.Client(follow_redirects=True) as browser:
        assert "Welcome" in browser.get(f"{lab.url}/ovirt-engine").text
    for query in ({}, {"resource": "x"}, {"resource": "ca-certificate", "format": "x"}):
        assert httpx.get(f"{base}/pki-resource", params=query).status_code == 400


def test_slashes_in_a_row_are_one(lab: Any, http: httpx.Client) -> None:
    form = {"grant_type": "password", "scope": "ovirt-app-api", "username": "admin@internal", "password": "secret"}
    answer = httpx.post(f"{lab.url}//ovirt-engine/sso//oauth/token", data=form, headers=JSON)
    assert answer.json()["access_token"]
    found = http.get(f"{lab.url}/ovirt-engine/api//vms///{lab.vm_id('web')}", headers=JSON)
    assert found.json()["name"] == "web"


def test_who_keeps_no_cookies_never_reaches_the_welcome_page(lab: Any) -> None:
    """Clients that leave out `/api` tell by it that this is not the interface."""
    url = httpx.URL(f"{lab.url}/ovirt-engine")
    seen = []
    for _ in range(9):
        answer = httpx.get(url)
        assert answer.status_code == 302
        url = url.join(answer.headers["location"])
        seen.append(url.path.removeprefix("/ovirt-engine"))
    assert seen == ["/", *(2 * ["/login", "/sso/oauth/authorize", "/oauth2-callback", "/"])]


def test_a_kept_login_has_a_limit_of_at_least_a_minute(lab: Any) -> None:
    headers = {"Prefer": "persistent-auth", "Session-TTL": "0"}
    with httpx.Client(base_url=f"{lab.url}/ovirt-engine/api/", headers=headers) as client:
        assert client.get("vms", auth=("admin@internal", "secret")).status_code == 200
        assert client.cookies.get("JSESSIONID")
        assert client.get("vms").status_code == 200
