# SPDX-License-Identifier: GPL-3.0-or-later
"""The shapes of requests and answers: XML and JSON, faults, parameters, headers."""

from typing import Any
from xml.etree import ElementTree as ET

import httpx
import pytest

JSON = {"Accept": "application/json"}


def test_xml_is_the_default_in_the_engines_order(lab: Any, http: httpx.Client) -> None:
    answer = http.get(f"vms/{lab.vm_id('web')}")
    assert answer.headers["content-type"] == "application/xml;charset=UTF-8"
    root = ET.fromstring(answer.content)
    tags = [child.tag for child in root]
    assert tags[:4] == ["actions", "name", "description", "comment"]
    fields = [tag for tag in tags[4:] if tag != "link"]
    references = ["cluster", "cpu_profile", "host", "original_template", "template"]
    assert fields[-5:] == references
    assert fields[:-5] == sorted(fields[:-5])
    assert root.get("href") == f"/ovirt-engine/api/vms/{lab.vm_id('web')}"


def test_json_has_the_engines_odd_forms(lab: Any, http: httpx.Client) -> None:
    vm = http.get(f"vms/{lab.vm_id('web')}", headers=JSON).json()
    assert vm["memory"] == str(128 << 20)
    assert vm["delete_protected"] == "false"
    assert isinstance(vm["creation_time"], int)
    assert {"href": vm["href"] + "/nics", "rel": "nics"} in vm["link"]
    assert {"href": vm["href"] + "/start", "rel": "start"} in vm["actions"]["link"]
    statistic = http.get(f"vms/{lab.vm_id('web')}/statistics", headers=JSON).json()["statistic"][0]
    assert statistic["values"]["value"] == [{"datum": 128 << 20}]  # decimals are numbers
    assert vm["os"]["boot"]["devices"] == {"device": ["hd"]}
    assert http.get("vms?search=name%3Dnothing", headers=JSON).json() == {}


def test_a_nic_is_plugged_by_its_actions(lab: Any, http: httpx.Client) -> None:
    nic = http.get(f"vms/{lab.vm_id('web')}/nics", headers=JSON).json()["nic"][0]
    for action, plugged in (("deactivate", "false"), ("activate", "true")):
        [link] = [link for link in nic["actions"]["link"] if link["rel"] == action]
        assert http.post(f"{lab.url}{link['href']}", json={}, headers=JSON).json() == {"status": "complete"}
        assert http.get(f"{lab.url}{nic['href']}", headers=JSON).json()["plugged"] == plugged


def test_json_bodies_mean_what_xml_bodies_mean(lab: Any, http: httpx.Client) -> None:
    domain = next(iter(lab.engine.state.storage_domains))
    disk = {
        "alias": "j",
        "provisioned_size": "1048576",
        "format": "cow",
        "sparse": "true",
        "storage_domains": {"storage_domain": [{"id": domain}]},
    }
    answer = http.post("disks", json=disk, headers=JSON)
    assert answer.status_code == 202
    assert answer.json()["alias"] == "j"
    assert answer.json()["creation_status"] == "pending"


def test_missing_malformed_and_unknown(http: httpx.Client) -> None:
    missing = http.get("vms/00000000-0000-0000-0000-00000000dead")
    assert (missing.status_code, missing.content) == (404, b"")
    malformed = http.get("vms/not-a-guid")
    assert (malformed.status_code, malformed.content) == (404, b"")
    asked = {"name": "v", "cluster": {"id": "not-a-guid"}, "template": {"name": "Blank"}}
    named = http.post("vms", json=asked, headers=JSON)
    assert (named.status_code, named.json()["detail"]) == (400, "Invalid UUID string: not-a-guid")
    assert http.get("nonsense").status_code == 404
    assert http.put("vms", content=b"<vm/>").status_code == 405
    broken = http.post("disks", content=b"<disk", headers={"Content-Type": "application/xml"})
    assert broken.status_code == 400


def test_fault_in_both_forms(lab: Any, http: httpx.Client) -> None:
    path = f"vms/{lab.vm_id('web')}"
    fault = ET.fromstring(http.delete(path).content)
    assert fault.findtext("detail") == "[Cannot remove VM. VM is running.]"
    assert fault.findtext("reason") == "Operation Failed"
    action = http.post(f"{path}/start", json={}, headers=JSON)
    assert action.status_code == 409
    assert action.json() == {
        "fault": {"detail": "[Cannot run VM because the VM is in Up status.]", "reason": "Operation Failed"},
        "status": "failed",
    }


@pytest.mark.parametrize(("given", "kept"), [("abc-1_2", "abc-1_2"), ("a b;c!", "abc"), ("x" * 50, "x" * 36)])
def test_correlation_id(http: httpx.Client, given: str, kept: str) -> None:
    assert http.get("vms", headers={"Correlation-Id": given}).headers["correlation-id"] == kept
    assert http.get("vms", params={"correlation_id": given}).headers["correlation-id"] == kept
    assert http.get("vms").headers["correlation-id"]


def test_matrix_parameters(http: httpx.Client) -> None:
    names = [vm["name"] for vm in http.get("vms;search=name%3Ddb;max=5", headers=JSON).json()["vm"]]
    assert names == ["db"]


def test_all_content_as_header_and_query(lab: Any, http: httpx.Client) -> None:
    path = f"vms/{lab.vm_id('web')}"
    assert "initialization" not in http.get(path, headers=JSON).json()
    by_query = http.get(path, params={"all_content": "true"}, headers=JSON).json()
    by_header = http.get(path, headers={**JSON, "All-Content": "true"}).json()
    assert by_query["initialization"]["configuration"]["type"] == "ovf"
    assert by_header["initialization"]["configuration"]["type"] == "ovf"


def test_max_and_page(http: httpx.Client) -> None:
    def names(**parameters: str) -> list[str]:
        return [vm["name"] for vm in http.get("vms", params=parameters, headers=JSON).json().get("vm", [])]

    assert names(search="sortby name asc") == ["db", "web"]
    assert names(search="sortby name asc", max="1") == ["db"]
    assert names(search="sortby name asc page 2", max="1") == ["web"]
    assert names(search="sortby name asc page 3", max="1") == []


def test_follow_two_levels_and_references(lab: Any, http: httpx.Client) -> None:
    path = f"vms/{lab.vm_id('web')}"
    vm = http.get(path, params={"follow": "disk_attachments.disk.storage_domains,nics,cluster"}, headers=JSON).json()
    disks = [item["disk"] for item in vm["disk_attachments"]["disk_attachment"]]
    assert [disk["alias"] for disk in disks] == ["web_system", "web_data"]
    assert disks[0]["storage_domains"]["storage_domain"][0]["name"] == "data"
    assert vm["nics"]["nic"][0]["name"] == "nic1"
    assert vm["cluster"]["name"] == "Default"
    assert "diskattachments" in [link["rel"] for link in vm["link"]]  # beside what it leads to


def test_created_blocking_and_not(lab: Any, http: httpx.Client) -> None:
    body = (
        b"<disk><alias>d</alias><provisioned_size>1048576</provisioned_size><format>raw</format>"
        b"<storage_domains><storage_domain><name>data</name></storage_domain></storage_domains></disk>"
    )
    xml = {"Content-Type": "application/xml"}
    pending = http.post("disks", content=body, headers=xml)
    assert pending.status_code == 202
    assert ET.fromstring(pending.content).findtext("status") == "locked"
    done = http.post("disks", content=body, headers={**xml, "Expect": "201-created"})
    assert done.status_code == 201
    assert ET.fromstring(done.content).findtext("status") == "ok"


def test_bombs_are_not_expanded(http: httpx.Client) -> None:
    body = b'<!DOCTYPE d [<!ENTITY a "x">]><tag><name>&a;&a;</name></tag>'
    answer = http.post("tags", content=body, headers={"Content-Type": "application/xml"})
    assert answer.status_code == 400
