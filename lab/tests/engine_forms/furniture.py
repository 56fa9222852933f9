# SPDX-License-Identifier: GPL-3.0-or-later
"""One thing of each kind in a lab, made by JSON requests, so that a walk through the lab meets it."""

from __future__ import annotations

from typing import Any

import httpx
from lab.tests.engine_core.conftest import Lab

JSON = {"Accept": "application/json"}


class Furnisher:
    """Posts JSON; numbers and booleans once as text and once as they are, for the engine takes both."""

    def __init__(self, lab: Lab, http: httpx.Client) -> None:
        self._lab = lab
        self._http = http

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = self._http.post(path, json=body, headers=JSON)
        assert answer.status_code in (200, 201, 202), f"{path}: {answer.status_code} {answer.text}"
        return dict(answer.json())

    def put(self, path: str, body: dict[str, Any]) -> None:
        answer = self._http.put(path, json=body, headers=JSON)
        assert answer.status_code == 200, f"{path}: {answer.status_code} {answer.text}"

    def get(self, path: str) -> dict[str, Any]:
        return dict(self._http.get(path, headers=JSON).json())

    def until(self, path: str, **fields: str) -> None:
        """Wait until the object says so."""
        self._lab.wait(lambda: fields.items() <= self.get(path).items())


def furnish(lab: Lab, http: httpx.Client) -> None:
    """Fill the lab, and wait until all of it is done."""
    make = Furnisher(lab, http)
    web, db = lab.vm_id("web"), lab.vm_id("db")
    cluster = make.get("clusters")["cluster"][0]["id"]
    data_center = make.get("datacenters")["data_center"][0]["id"]
    domain = make.get("storagedomains")["storage_domain"][0]["id"]
    _virtual_machines(make, lab, web, db)
    _policies(make, cluster, data_center, domain)
    _networks(make, cluster, data_center)
    _people(make, web)
    _details(make, lab, data_center)
    _log(make, web)


def _virtual_machines(make: Furnisher, lab: Lab, web: str, db: str) -> None:
    template = make.post("templates", {"name": "gold", "vm": {"id": db}})
    make.until(f"templates/{template['id']}", status="ok")
    snapshot = make.post(f"vms/{db}/snapshots", {"description": "before", "persist_memorystate": False})
    make.until(f"vms/{db}/snapshots/{snapshot['id']}", snapshot_status="ok")
    disk = {"id": lab.disk_id("web_system")}
    backup = make.post(f"vms/{web}/backups?legacy=true", {"disks": {"disk": [disk]}, "description": "nightly"})
    make.until(f"vms/{web}/backups/{backup['id']}", phase="ready")
    make.put(f"vms/{web}", {"comment": "mine", "custom_properties": {"custom_property": [{"name": "a", "value": "b"}]}})
    make.post(f"vms/{db}/numanodes", {"index": 0, "memory": "64", "cpu": {"cores": {"core": [{"index": 0}]}}})
    extra = {"name": "nic2", "interface": "e1000", "mac": {"address": "02:00:00:00:00:05"}, "plugged": "false"}
    make.post(f"vms/{db}/nics", extra)
    tag = make.post("tags", {"name": "gold", "description": "daily"})
    make.post(f"vms/{db}/tags", {"id": tag["id"]})


def _policies(make: Furnisher, cluster: str, data_center: str, domain: str) -> None:
    group = {"name": "apart", "positive": False, "enforcing": "true"}
    made = make.post(f"clusters/{cluster}/affinitygroups", group)
    vm = make.get("vms")["vm"][0]["id"]
    make.post(f"clusters/{cluster}/affinitygroups/{made['id']}/vms", {"id": vm})
    label = make.post("affinitylabels", {"name": "near"})
    make.post(f"affinitylabels/{label['id']}/vms", {"id": vm})
    quota = make.post(f"datacenters/{data_center}/quotas", {"name": "small", "cluster_soft_limit_pct": 70})
    base = f"datacenters/{data_center}/quotas/{quota['id']}"
    make.post(f"{base}/quotastoragelimits", {"limit": 5, "storage_domain": {"id": domain}})
    make.post(f"{base}/quotaclusterlimits", {"memory_limit": 1.5, "vcpu_limit": "4", "cluster": {"id": cluster}})


def _networks(make: Furnisher, cluster: str, data_center: str) -> None:
    network = make.post("networks", {"name": "blue", "data_center": {"id": data_center}, "vlan": {"id": 7}})
    make.post(f"clusters/{cluster}/networks", {"id": network["id"], "required": "false"})
    span = {"from": "02:00:00:00:00:00", "to": "02:00:00:00:00:ff"}
    make.post("macpools", {"name": "mine", "ranges": {"range": [span]}})
    host = make.get("hosts")["host"][0]["id"]
    agent = {"address": "a", "type": "ipmilan", "username": "u", "password": "p", "order": 1}
    make.post(f"hosts/{host}/fenceagents", agent)


def _people(make: Furnisher, web: str) -> None:
    permits = [{"name": "backup_disk"}, {"name": "create_disk"}]
    role = make.post("roles", {"name": "Saver", "administrative": True, "permits": {"permit": permits}})
    everyone = next(item for item in make.get("groups")["group"] if item["name"] == "Everyone")
    make.post(f"vms/{web}/permissions", {"role": {"id": role["id"]}, "group": {"id": everyone["id"]}})


def _details(make: Furnisher, lab: Lab, data_center: str) -> None:
    """What an engine keeps of an object and does little with, and a transfer."""
    make.post("bookmarks", {"name": "mine", "value": "Vms:status=up"})
    make.post("externalhostproviders", {"name": "foreman", "url": "https://foreman.example", "username": "u"})
    make.post(f"datacenters/{data_center}/qoss", {"name": "slow", "type": "storage", "max_iops": 100})
    make.post(f"vms/{lab.vm_id('db')}/watchdogs", {"model": "i6300esb", "action": "reset"})
    network = make.get("networks")["network"][0]["id"]
    make.post(f"networks/{network}/networklabels", {"id": "blue"})
    tag, host = make.get("tags")["tag"][-1]["id"], make.get("hosts")["host"][0]["id"]
    make.post(f"hosts/{host}/tags", {"id": tag})
    transfer = {"direction": "download", "format": "raw", "disk": {"id": lab.disk_id("db_system")}}
    made = make.post("imagetransfers", transfer)
    make.until(f"imagetransfers/{made['id']}", phase="transferring")


def _log(make: Furnisher, web: str) -> None:
    event = {"origin": "me", "severity": "warning", "description": "look", "custom_id": 7, "vm": {"id": web}}
    make.post("events", event)
    job = make.post("jobs", {"description": "mine"})
    step = make.post(f"jobs/{job['id']}/steps", {"description": "first", "type": "executing"})
    make.post(f"jobs/{job['id']}/steps/{step['id']}/end", {"succeeded": "true"})
